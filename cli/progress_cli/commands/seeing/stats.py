"""`stats` and `top`: figures of the whole installation, once or again and again."""

from typing import Annotated

import typer

from progress_broker.replicas.figures import Stats
from progress_broker.replicas.presence import ReplicaState
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.options import READER, with_settings
from progress_cli.output import format, tables
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_cli.output.watching import EVERY_S, Watch, Write, repeat, show
from progress_client.operators.operators import Operators


def _mebibytes(value: float) -> str:
    return f"{value / 1024 / 1024:,.1f} MiB"


def _memory(stats: Stats) -> str:
    fullest = max(stats.redis, key=lambda it: it.used_bytes / it.max_bytes if it.max_bytes else 0, default=None)
    if fullest is None:
        return ""
    limit = f" of {_mebibytes(fullest.max_bytes)}" if fullest.max_bytes else ""
    return f"{_mebibytes(fullest.used_bytes)}{limit}"


SHAPE = Shape[Stats](
    columns=(
        Column("OPERATIONS", lambda it: sum(it.counts.operations.values()), format.number),
        Column("PENDING", lambda it: it.counts.operations.get("pending", 0), format.number),
        Column("RUNNING", lambda it: it.counts.operations.get("running", 0), format.number),
        Column("STALLED", lambda it: it.counts.operations.get("stalled", 0), format.number),
        Column("FAILED", lambda it: it.counts.operations.get("failed", 0), format.number),
        Column("EVENTS/S", lambda it: it.events_per_s, format.number),
        Column("STREAMS", lambda it: it.streams, format.number),
        Column("READY", lambda it: f"{it.ready} of {it.replicas}"),
        Column("LAG", lambda it: it.slowest_lag_s, lambda lag_s: f"{lag_s * 1000:,.0f} ms"),
        Column("MEMORY", _memory),
        Column("IDLE", lambda it: it.counts.unfinished_idle_s, format.duration, wide=True),
        Column("EXPIRY", lambda it: it.counts.expiry_overdue_s, format.duration, wide=True),
        Column("LEASES", lambda it: it.counts.leases_overdue_s, format.duration, wide=True),
    ),
    name=lambda it: it.at.isoformat(),
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def stats(settings: Settings, output: Output = Format.TABLE, watch: Watch = False) -> None:
    """Show figures of the whole installation: operations by status, events per second, streams, memory."""

    def draw(write: Write) -> None:
        found = connect.ask(settings, lambda operators: operators.admin.stats())
        with Printer(SHAPE, output, write) as printer:
            printer.add(found)

    show(draw, watch=watch)


@with_settings(*READER)
def top(
    settings: Settings,
    interval: Annotated[float, typer.Option(metavar="SECONDS", min=0.5, help="How often to look.")] = EVERY_S,
    count: Annotated[int, typer.Option("-n", min=0, help="How many times to look; 0: until Ctrl-C.")] = 0,
) -> None:
    """Show figures of the whole installation again and again, with all replicas and the busiest operations."""

    def draw(write: Write) -> None:
        found, replicas = connect.ask(settings, _read)
        figures = [[column.title for column in SHAPE.columns], [it.shown(it.value(found)) for it in SHAPE.columns]]
        rows = [["REPLICA", "HOST", "STATE", "STREAMS", "LAG"]]
        for it in replicas:
            state = "ready" if it.ready else it.reason or "not ready"
            rows.append([it.id, format.plain(it.host), state, format.number(it.streams), f"{it.lag_s * 1000:,.0f} ms"])
        busiest = [["OPERATION", "EVENTS/S"]]
        busiest += [[format.plain(it.id), format.number(it.events_per_s)] for it in found.busiest]
        for table in (figures, rows, busiest):
            for line in (*tables.aligned(table), ""):
                write(line)

    repeat(draw, interval, count)


async def _read(operators: Operators) -> tuple[Stats, list[ReplicaState]]:
    return await operators.admin.stats(), (await operators.admin.replicas()).replicas
