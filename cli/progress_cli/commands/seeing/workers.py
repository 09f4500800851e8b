"""`workers`: list the workers of operations that have not ended."""

from progress_broker.replicas.figures import WorkerState
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_cli.output.watching import Watch, Write, show


def _left(value: float | None) -> str:
    if value is None:
        return "no lease"
    return "expired" if value < 0 else format.duration(value)


SHAPE = Shape[WorkerState](
    columns=(
        Column("WORKER", lambda it: it.worker or "(no name)"),
        Column("OPERATIONS", lambda it: it.operations, format.number),
        Column("STALLED", lambda it: it.stalled, format.number),
        Column("IDLE", lambda it: it.idle_s, format.duration),
        Column("LEASE", lambda it: it.lease_left_s, _left),
    ),
    name=lambda it: it.worker,
    to_json=lambda it: it.model_dump(mode="json"),
)


@with_settings(*READER)
def workers(settings: Settings, output: Output = Format.TABLE, watch: Watch = False) -> None:
    """List the workers of operations that have not ended, those with the longest silence first."""

    def draw(write: Write) -> None:
        found = connect.ask(settings, lambda operators: operators.admin.workers())
        with Printer(SHAPE, output, write) as printer:
            for worker in found.workers:
                printer.add(worker)
        if found.partial:
            print_info("there are more operations than were looked at, or some lanes can't be reached now")

    show(draw, watch=watch)
