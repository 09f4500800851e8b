"""Reports one of a command's two outputs to an operation, line by line.

The bytes become lines of a terminal (`Terminal`), lines become readings (`Pattern`), readings become parts of the work
(`Parts`), and these change the operation.
"""

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Literal

from progress_workers.base import BaseOperation
from progress_workers.core.outgoing.backlog import MAX_LINES
from progress_workers.processes.bars.parts import Parts
from progress_workers.processes.bars.patterns import Pattern
from progress_workers.processes.bars.readings import Reading
from progress_workers.processes.bars.rows import Labels, Rows
from progress_workers.processes.terminal import Line, Terminal
from progress_workers.values import text as readable

Name = Literal["stdout", "stderr"]
OnLine = Callable[[str, Name], object]
"""Called with each line in its final form, and the name of its output."""

MOST_AT_ONCE = MAX_LINES // 2
"""How many lines of a burst are reported. More lines, and the warning about them, would push each other out of the log.
"""
MOST_PER_S = 10_000.0
"""How many lines a second are reported in a long run. The log can't be sent much faster, and the command must not wait.
"""
LEAST_AT_ONCE = 100
"""How many lines, the last ones, are always reported from one read."""
LAST_LINES = 10
"""How many lines are kept to explain how a command failed."""
LAST_CHARS = 300
"""How many characters of each of these lines are kept."""

_LEVELS: dict[Name, str] = {"stdout": "info", "stderr": "warning"}


class Output:
    """The output on `stdout` or `stderr`: its lines go to the log, and lines that are rewritten become the message."""

    def __init__(
        self,
        name: Name,
        operation: BaseOperation,
        *,
        pattern: Pattern | None = None,
        keep_ansi: bool = False,
        on_line: OnLine | None = None,
        parts: Parts | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self.other: Output | None = None
        """The command's other output, if there is one."""
        self._name, self._operation, self._pattern = name, operation, pattern
        self._on_line = on_line
        self._parts = Parts() if parts is None else parts
        self._terminal = Terminal(keep_ansi=keep_ansi)
        self._rows, self._labels = Rows(), Labels()
        self._has_rows = False
        self._message = ""
        self._muted = False
        self._clock = clock
        self._credit, self._credited_at = float(MOST_AT_ONCE), clock()

    def feed(self, chunk: bytes, *, final: bool = False) -> None:
        """Process a chunk. With `final`, nothing follows, and the last line may lack its newline."""
        if self.other is not None:
            self.other.settle()
        if not self._muted:
            self._take(self._terminal.feed(chunk, final=final))

    def settle(self) -> None:
        """Log the lines that wait, because they came before what the other output says now."""
        if not self._muted:
            self._take(self._terminal.settle())

    def look(self) -> None:
        """Process a line that has not changed for a moment."""
        if not self._muted:
            self._take(self._terminal.look())

    def complete(self) -> None:
        """Note that the command has succeeded: a bar that has reached its end is shown so."""
        measured = self._parts.complete()
        if measured is not None:
            self._operation._measure(measured)

    def mute(self) -> None:
        """Ignore further output."""
        self._muted = True

    def _take(self, lines: list[Line]) -> None:
        if self._on_line is None:
            self._leave_out(lines)
        for line in lines:
            if line.final:
                self._report_line(line)
            if line.news:
                self._read(line)

    def _leave_out(self, lines: list[Line]) -> None:
        """Remove the first lines if there are more than the log can hold, and log how many."""
        now = self._clock()
        self._credit = min(MOST_AT_ONCE, self._credit + (now - self._credited_at) * MOST_PER_S)
        self._credited_at = now
        finals = [number for number, line in enumerate(lines) if line.final]
        left_out = len(finals) - max(LEAST_AT_ONCE, int(self._credit))
        if left_out > 0:
            self._operation.log(
                f"lines left out because they arrived faster than they could be sent: {left_out}", "warning"
            )
            del lines[: finals[left_out - 1] + 1]
        self._credit = max(0.0, self._credit - (len(finals) - max(0, left_out)))

    def _report_line(self, line: Line) -> None:
        """Log a finished line."""
        text = line.text if line.styled is None else line.styled
        if line.text and not line.text.isspace():
            self._operation.log(text.rstrip(), _LEVELS[self._name])
            self.last.append(readable(line.text.rstrip(), LAST_CHARS))
        if self._on_line is not None:
            self._on_line(text, self._name)

    def _read(self, line: Line) -> None:
        """Report what a line says about the progress."""
        text = line.text.strip()
        if not text:
            self._rows.take(line.row, None, blank=True)
            return
        examined = self._pattern is not None and (line.rewritten or self._pattern.everywhere)
        reading = self._pattern.read(line.text, unfinished=line.unfinished) if examined and self._pattern else None
        self._rows.take(line.row, reading, final=line.final)
        self._has_rows = self._has_rows or self._terminal.moves_up
        if self._has_rows:
            is_main, reading = self._among_rows(line, reading)
        else:
            is_main, reading = True, None if reading is None else self._labels.take(reading)
        message = text if is_main and line.rewritten and text != self._message else None
        if is_main and reading is not None and reading.message is not None:
            message = reading.message
        if message is not None:
            self._message = message
        moved = reading is not None and (is_main or reading.bars > 1) and self._move(reading, message)
        if message is not None and not moved:
            self._operation.update(message=message)

    def _among_rows(self, line: Line, reading: Reading | None) -> tuple[bool, Reading | None]:
        """Return whether a row decides, of several whose bars are shown below each other, and what it says."""
        together = self._rows.together()
        if reading is None:
            return together is None, None
        if together is None and self._rows.are_together:
            return True, None  # all are complete, which was said by their sum
        if together is not None and together.bars > 1:
            return self._rows.decides(line.row), together
        return self._rows.decides(line.row), reading

    def _move(self, reading: Reading, message: str | None) -> bool:
        """Report how far the work is, and the message with it; return whether there was anything to report."""
        if reading.share is None:  # only a pattern of the user finds a count without a total, or a unit alone
            self._operation.update(current=reading.current, total=reading.total, unit=reading.unit, message=message)
            return True
        measured = self._parts.take(reading)
        if measured is None:
            return False
        self._operation._measure(measured._replace(message=message))
        return True
