"""Splits a stream of bytes into lines, as a terminal would show them. No I/O; memory is bounded for any input."""

import codecs
import re
from typing import NamedTuple

from progress_workers.values import text as readable

MAX_CHARS = 65_536
"""The longest line kept, in characters; the rest of a longer line is dropped."""

_UNPRINTED = re.compile(
    r"""\x1b\[[0-?]*[ -/]*(?:[@-~]|$)            # colours, movements of the cursor
    |\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)?   # titles, links
    |\x1b[ -/]*(?:[0-~]|$)                       # character sets, modes
    |[\x00-\x08\x0a-\x1f\x7f-\x9f]               # all other control characters but the tab
    """,
    re.VERBOSE,
)


class Line(NamedTuple):
    """A line in its final form, or in its current form if it is unfinished."""

    text: str
    rewritten: bool
    """Whether a carriage return moved back to its beginning, as progress bars do."""


class Lines:
    """Splits its input into raw lines, which may contain `\\r`; `shown` interprets them."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.rest = ""
        """The unfinished line, without the parts that no longer matter."""

    def feed(self, chunk: bytes, *, final: bool = False) -> list[str]:
        """Return the lines that a chunk completes. With `final`, also return the last line if it has no newline."""
        *lines, rest = (self.rest + self._decode(chunk, final)).split("\n")
        self.rest = "" if final else _bounded(rest)
        return [*lines, rest] if final and rest else lines

    @property
    def draft(self) -> str:
        """The text before the last carriage return of the unfinished line; empty if no new text follows it yet."""
        before, _, last = self.rest.rpartition("\r")
        return before if last else ""


def shown(raw: str, *, keep_ansi: bool = False) -> Line:
    """Return a raw line as it is seen: the text after the last carriage return, without escapes unless `keep_ansi`."""
    seen = raw.rstrip("\r")
    _, rewritten, text = seen.rpartition("\r")
    if not keep_ansi and not text.isprintable():
        text = _UNPRINTED.sub("", text)
    return Line(readable(text, MAX_CHARS), bool(rewritten))


def _bounded(rest: str) -> str:
    """Return an unfinished line without the text that was overwritten for good."""
    before, rewritten, last = rest.rpartition("\r")
    if not rewritten:
        return rest[: MAX_CHARS + 1]
    _, again, draft = before.rstrip("\r").rpartition("\r")
    return f"{again}{draft[: MAX_CHARS + 1]}\r{last[: MAX_CHARS + 1]}"
