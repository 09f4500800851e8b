"""How commands that move operations show how far they are: a line on a terminal, which changes."""

import sys
from collections import Counter
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from progress_broker.transfer.endpoints import Outcome, Result, described
from progress_cli.output.format import counted
from progress_cli.output.formats import Column, Shape

OUTCOME: Shape[Outcome] = Shape(
    columns=(
        Column("ID", lambda outcome: outcome.id),
        Column("RESULT", lambda outcome: outcome.result.value),
        Column("WHY", lambda outcome: outcome.why),
    ),
    name=lambda outcome: outcome.id,
    to_json=lambda outcome: outcome._asdict(),
)
"""How outcomes are printed."""


class Counts:
    """How much was exported so far."""

    def __init__(self) -> None:
        self.operations = self.events = 0

    def __str__(self) -> str:
        return f"{counted(self.operations, 'operation')} with {counted(self.events, 'event')}"

    def add(self, events: int) -> None:
        """Count an operation with so many events."""
        self.operations += 1
        self.events += events


class Outcomes:
    """What came of the operations that were imported so far."""

    FAILED = (Result.CONFLICT, Result.REFUSED)
    """The results for which something has to be done."""

    def __init__(self) -> None:
        self._results: Counter[str] = Counter()

    def __str__(self) -> str:
        results = described(self._results)
        return f"{counted(self.total, 'operation')}{': ' if results else ''}{results}"

    def add(self, result: Result) -> None:
        """Count an operation."""
        self._results[result] += 1

    @property
    def total(self) -> int:
        """How many operations there were."""
        return self._results.total()

    @property
    def failed(self) -> bool:
        """Whether one of them was not stored, and is not there already."""
        return any(self._results[result] for result in self.FAILED)


def shown(verb: str, what: object) -> AbstractContextManager[object]:
    """Show how far a command is on standard error until the block ends, if that is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()

    def line() -> Text:
        return Text(f"{verb} {what}")

    return Live(console=Console(stderr=True), get_renderable=line, transient=True, refresh_per_second=5)
