"""Reports one of a command's two outputs to an operation, line by line."""

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Literal

from progress_workers.base import BaseOperation
from progress_workers.core.backlog import MAX_LINES
from progress_workers.processes.lines import Lines, shown
from progress_workers.processes.patterns import Pattern, ProgressUpdate
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
    ) -> None:
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._name, self._operation, self._pattern = name, operation, pattern
        self._keep_ansi, self._on_line = keep_ansi, on_line
        self._lines = Lines()
        self._looked_at = ""
        self._draft = ("", False)
        self._muted = False
        self._credit, self._credited_at = float(MOST_AT_ONCE), monotonic()

    def feed(self, chunk: bytes, *, final: bool = False) -> None:
        """Process a chunk. With `final`, nothing follows, and the last line may lack its newline."""
        if self._muted:
            return
        lines = self._lines.feed(chunk, final=final)
        if self._on_line is None:
            self._leave_out(lines)
        for line in lines:
            self._report_line(line)
        if self._lines.draft:
            self._rewrite(self._lines.draft, unfinished=False)

    def look(self) -> None:
        """Process an unfinished line that has not changed for a moment."""
        rest = self._lines.rest
        if self._muted or rest == self._looked_at:
            return
        self._looked_at = rest
        if "\r" in rest:
            self._rewrite(rest, unfinished=True)
        else:
            self._move(shown(rest).text, rewritten=False, unfinished=True)

    def mute(self) -> None:
        """Ignore further output."""
        self._muted = True

    def _leave_out(self, lines: list[str]) -> None:
        """Remove the first lines if there are more than the log can hold, and log how many."""
        now = monotonic()
        self._credit = min(MOST_AT_ONCE, self._credit + (now - self._credited_at) * MOST_PER_S)
        self._credited_at = now
        left_out = len(lines) - max(LEAST_AT_ONCE, int(self._credit))
        if left_out > 0:
            self._operation.log(
                f"lines left out because they arrived faster than they could be sent: {left_out}", "warning"
            )
            del lines[:left_out]
        self._credit = max(0.0, self._credit - len(lines))

    def _report_line(self, raw: str) -> None:
        text, rewritten = shown(raw, keep_ansi=self._keep_ansi)
        plain = shown(raw).text if self._keep_ansi else text
        if text and not text.isspace():
            self._operation.log(text.rstrip(), _LEVELS[self._name])
            self.last.append(readable(plain.rstrip(), LAST_CHARS))
            self._move(plain, rewritten=rewritten)
        if self._on_line is not None:
            self._on_line(text, self._name)

    def _rewrite(self, raw: str, *, unfinished: bool) -> None:
        text = shown(raw).text
        if text and not text.isspace() and self._draft != (text, unfinished):
            self._draft = text, unfinished
            self._move(text, rewritten=True, unfinished=unfinished)

    def _move(self, text: str, *, rewritten: bool, unfinished: bool = False) -> None:
        moves: ProgressUpdate = {"message": text.strip()} if rewritten else {}
        if self._pattern is not None and (rewritten or self._pattern.everywhere):
            moves |= self._pattern.read(text, unfinished=unfinished)
        if moves:
            self._operation.update(**moves)
