"""`retention`: show or set how long operations are kept."""

import asyncio
import sys
from dataclasses import replace
from typing import Annotated

import typer

from progress_broker.access.audit import AuditEntry, record_once
from progress_broker.operations import retention as kept
from progress_broker.operations.store import Store
from progress_broker.runtime.durations import seconds, shown
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.options import CLIENT, with_settings


@with_settings(*CLIENT)
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
    ended_s, idle_s = (None if given is None else seconds(given) for given in (ended, idle))
    asyncio.run(_run(settings, ended_s, idle_s))


async def _run(settings: Settings, ended_s: float | None, idle_s: float | None) -> None:
    async with await Store.open(connect.locate(settings)) as store:
        new = await kept.read(store)
        if ended_s is not None or idle_s is not None:
            new = replace(new, ended_s=ended_s or new.ended_s, idle_s=idle_s or new.idle_s)
            await _change(store, new)
            detail = f"ended {shown(new.ended_s)}, idle {shown(new.idle_s)}"
            await record_once(store, AuditEntry(caller(), "redis", "retention", "", detail=detail))
    typer.echo(
        f"Ended operations are kept for {shown(new.ended_s)}, operations without events for {shown(new.idle_s)}."
    )


async def _change(store: Store, new: kept.Retention) -> None:
    live = sys.stderr.isatty()

    def tell(looked: int) -> None:
        if live:
            typer.echo(f"\r{looked:,} operations checked", nl=False, err=True)

    looked, changed = await kept.change(store, new, tell)
    if live and looked:
        typer.echo(err=True)
    typer.echo(f"{changed:,} of {looked:,} existing operations expire at another time now.")
