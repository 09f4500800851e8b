"""How commands that move operations show how far they are: a line on a terminal, which changes."""

import sys
from contextlib import AbstractContextManager, nullcontext

from rich.console import Console
from rich.live import Live
from rich.text import Text

from progress_cli.output.format import counted


class Counts:
    """What was moved so far."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self.operations = self.events = 0

    def __str__(self) -> str:
        return f"{counted(self.operations, 'operation')} with {counted(self.events, 'event')}"

    def add(self, events: int) -> None:
        """Count an operation with so many events."""
        self.operations += 1
        self.events += events

    def shown(self) -> AbstractContextManager[object]:
        """Show the counts on standard error until the block ends, if that is a terminal."""
        if not sys.stderr.isatty():
            return nullcontext()
        console = Console(stderr=True)
        return Live(console=console, get_renderable=self._line, transient=True, refresh_per_second=5)

    def _line(self) -> Text:
        return Text(f"{self._verb} {self}")
