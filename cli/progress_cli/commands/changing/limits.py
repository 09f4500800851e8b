"""`limits set`, `limits ls` and `limits rm`: limits of single principals."""

from typing import Annotated

import typer

from progress_broker.limits.principals import NewLimits, PrincipalLimits
from progress_broker.model.validation import validated
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.options import READER, with_settings
from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Output, Printer, Shape

Principal = Annotated[str, typer.Argument(metavar="PRINCIPAL", help="The name of the principal.")]


def _limit(value: float | None) -> str:
    return "" if value is None else "none" if not value else format.number(value)


SHAPE = Shape[PrincipalLimits](
    columns=(
        Column("PRINCIPAL", lambda it: it.principal),
        Column("REQUESTS/S", lambda it: it.requests_per_s, _limit),
        Column("BYTES/S", lambda it: it.sent_bytes_per_s, _limit),
        Column("STREAMS", lambda it: it.streams, _limit),
        Column("BY", lambda it: it.by),
        Column("SINCE", lambda it: it.at, lambda moment: moment.astimezone().isoformat(" ", "seconds")),
    ),
    name=lambda it: it.principal,
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def set_limits(
    settings: Settings,
    principal: Principal,
    requests: Annotated[
        float | None, typer.Option(metavar="N", help="Requests per second, and as many bursts; 0: no limit.")
    ] = None,
    sent: Annotated[
        float | None, typer.Option("--bytes", metavar="N", help="Bytes of request bodies per second; 0: no limit.")
    ] = None,
    streams: Annotated[int | None, typer.Option(metavar="N", help="Open streams; 0: no limit.")] = None,
) -> None:
    """Set the limits of a principal, in place of those of the settings. What is left out is as for all principals.

    All replicas apply them within about a second. What workers do in Redis itself is not limited.
    """
    new = validated(NewLimits, {"requests_per_s": requests, "sent_bytes_per_s": sent, "streams": streams})

    limits = connect.ask(settings, lambda operators: operators.admin.set_limits(principal, new))
    typer.echo(f"{format.plain(limits.principal)} is limited: {new.described()}")


@with_settings(*READER)
def list_limits(settings: Settings, output: Output = Format.TABLE) -> None:
    """List the principals with limits of their own."""

    with Printer(SHAPE, output) as printer:
        for limits in connect.ask(settings, lambda operators: operators.admin.limits()):
            printer.add(limits)


@with_settings(*READER)
def remove_limits(settings: Settings, principal: Principal) -> None:
    """Have the limits of the settings apply to a principal again."""

    connect.ask(settings, lambda operators: operators.admin.remove_limits(principal))
    typer.echo(f"{format.plain(principal)} has the limits of all principals again")
