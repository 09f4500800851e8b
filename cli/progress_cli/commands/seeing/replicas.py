"""`replicas`: list the replicas that are present."""

from typing import Any

from progress_broker.replicas.presence import ReplicaState
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_cli.output.watching import Watch, Write, show


def _standing(state: ReplicaState) -> str:
    if state.ready:
        return f"ready ({len(state.lanes_away)} of {state.lanes} lanes away)" if state.lanes_away else "ready"
    return state.reason or "not ready"


def _age_s(state: ReplicaState) -> float:
    return round((state.clock_at - state.started_at).total_seconds(), 1)


SHAPE = Shape[ReplicaState](
    columns=(
        Column("REPLICA", lambda it: it.id),
        Column("HOST", lambda it: it.host),
        Column("PID", lambda it: it.pid),
        Column("ADDRESS", lambda it: it.address),
        Column("VERSION", lambda it: it.version),
        Column("STATE", _standing),
        Column("STREAMS", lambda it: it.streams, format.number),
        Column("LAG", lambda it: it.lag_s, lambda lag_s: f"{lag_s * 1000:,.0f} ms"),
        Column("UP", _age_s, format.duration),
        Column("WEBSOCKETS", lambda it: it.websockets, format.number, wide=True),
        Column("SCHEMA", lambda it: it.schema_version, wide=True),
        Column("MOST", lambda it: it.streams_max or "", format.number, wide=True),
        Column("REFUSED", lambda it: it.refused, wide=True),
        Column("FILES", lambda it: it.files_max, wide=True),
        Column("TOLD", lambda it: it.told_s, lambda told_s: f"{told_s:.1f} s ago", wide=True),
    ),
    name=lambda it: it.id,
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def replicas(settings: Settings, output: Output = Format.TABLE, watch: Watch = False) -> None:
    """List the replicas that are present: where they are, whether they are ready, and how many streams they have."""

    def draw(write: Write) -> None:
        found = connect.ask(settings, lambda operators: operators.admin.replicas())
        with Printer(SHAPE, output, write) as printer:
            for state in found.replicas:
                printer.add(state)
        for name, values in found.differing.items():
            print_info(f"the replicas differ in PROGRESS_{name.upper()}: {', '.join(map(_shown, values))}")

    show(draw, watch=watch)


def _shown(value: Any) -> str:
    return "not set" if value is None else format.plain(value)
