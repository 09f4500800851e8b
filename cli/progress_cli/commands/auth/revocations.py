"""`auth revoke`, `auth restore` and `auth list`: principals and tokens that are no longer accepted."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from progress_broker.access.deny_list import LONGEST_S, Claim, RevokedClaim
from progress_broker.errors import InvalidInput
from progress_broker.runtime.durations import seconds
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.operation_options import AsJson
from progress_cli.options import READER, with_settings

Sub = Annotated[str | None, typer.Option(metavar="NAME", help="A principal: all its tokens and API keys.")]
Jti = Annotated[str | None, typer.Option(metavar="ID", help="One token, by its claim `jti`.")]


@with_settings(*READER)
def revoke(
    settings: Settings,
    sub: Sub = None,
    jti: Jti = None,
    last: Annotated[
        str,
        typer.Option(
            "--for", metavar="TIME", help="How long. Choose a time after which the token has expired by itself."
        ),
    ] = "24h",
) -> None:
    """Revoke a principal or a token on all replicas. Its open streams end within about two seconds."""
    claim, value = _named(sub, jti)
    for_s = seconds(last)
    if for_s > LONGEST_S:
        raise InvalidInput(f"--for {last} is too long: a revocation lasts {LONGEST_S / 86_400:.0f} days at most")
    connect.ask(settings, lambda operators: operators.admin.revoke(claim, value, for_s))
    typer.echo(f"{claim} {value!r} is revoked for {last}")


@with_settings(*READER)
def restore(settings: Settings, sub: Sub = None, jti: Jti = None) -> None:
    """Restore a principal or a token that was revoked. All replicas accept it again within about two seconds."""
    claim, value = _named(sub, jti)
    connect.ask(settings, lambda operators: operators.admin.restore(claim, value))
    typer.echo(f"{claim} {value!r} is restored")


@with_settings(*READER)
def show_revoked(settings: Settings, as_json: AsJson = False) -> None:
    """List the revoked principals and tokens, and until when they are revoked."""

    async def run() -> None:
        async with connect.operators(settings) as operators:
            async for denial in operators.admin.revoked():
                _print(denial, as_json=as_json)

    asyncio.run(run())


def _print(denial: RevokedClaim, *, as_json: bool) -> None:
    until = datetime.fromtimestamp(denial.until, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if as_json:
        typer.echo(orjson.dumps({"claim": denial.claim, "value": denial.value, "until": until}).decode())
    else:
        typer.echo(f"{denial.claim} {denial.value!r} is revoked until {until}")


def _named(sub: str | None, jti: str | None) -> tuple[Claim, str]:
    if (sub is None) is (jti is None):
        raise InvalidInput("give either --sub NAME or --jti ID")
    claim: Claim = "jti" if sub is None else "sub"
    value = (jti if sub is None else sub) or ""
    if not value or not value.isprintable():  # for example a shell variable that is not set
        raise InvalidInput(f"invalid --{claim} {value!r}: it is empty or has control characters")
    return claim, value
