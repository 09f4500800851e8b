"""`retention`: show or set how long operations are kept."""

import sys
from typing import Annotated

import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import MAX_RETENTION_S
from progress_broker.operations.retention import NewRetention, RetentionState
from progress_broker.runtime.durations import seconds, shown
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.options import READER, with_settings


@with_settings(*READER)
def retention(
    settings: Settings,
    ended: Annotated[str | None, typer.Option(metavar="TIME", help="How long to keep operations that ended.")] = None,
    idle: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long to keep operations without events that did not end.")
    ] = None,
) -> None:
    """Show how long operations are kept, or set it, also for existing operations: 45s, 30m, 1h or 7d.

    A server that is started with PROGRESS_RETENTION_S or PROGRESS_IDLE_TIMEOUT_S sets it, too.
    """
    if ended is None and idle is None:
        state = connect.ask(settings, lambda operators: operators.admin.retention())
    else:
        new = NewRetention(ended_s=_seconds("--ended", ended), idle_s=_seconds("--idle", idle))
        state = _change(settings, new)
    typer.echo(
        f"Ended operations are kept for {shown(state.ended_s)}, operations without events for {shown(state.idle_s)}."
    )


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    last_s = seconds(text)
    if last_s > MAX_RETENTION_S:
        raise InvalidInput(f"{option} {text} is too long: at most {MAX_RETENTION_S / 86_400:.0f}d")
    return last_s


def _change(settings: Settings, new: NewRetention) -> RetentionState:
    told = 0

    def tell(looked: int) -> None:
        nonlocal told
        if sys.stderr.isatty():
            told = looked
            typer.echo(f"\r{looked:,} operations checked", nl=False, err=True)

    state = connect.ask(settings, lambda operators: operators.admin.set_retention(new, tell))
    if told:
        typer.echo(err=True)
    typer.echo(f"{state.changed:,} of {state.looked:,} existing operations expire at another time now.")
    return state
