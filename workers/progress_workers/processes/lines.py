"""A stream of bytes as lines, as a terminal would leave them; without I/O, and bounded whatever comes."""

import codecs
import re
from typing import NamedTuple

from progress_workers.values import text as readable

MAX_CHARS = 65_536
"""Characters kept of a line; the rest, up to its end, is dropped."""

_UNPRINTED = re.compile(
    r"""\x1b\[[0-?]*[ -/]*(?:[@-~]|$)            # colours, movements of the cursor
    |\x1b[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)?   # titles, links
    |\x1b[ -/]*(?:[0-~]|$)                       # character sets, modes
    |[\x00-\x08\x0a-\x1f\x7f-\x9f]               # all other control characters but the tab
    """,
    re.VERBOSE,
)


class Line(NamedTuple):
    """A line in its final form, or in the one it has now."""

    text: str
    rewritten: bool
    """Whether its writer went back to its beginning, with a carriage return, as progress bars do."""


class Lines:
    """Cuts what is fed into raw lines, in which `\\r` may occur, for `shown` to read."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self.rest = ""
        """The unfinished line, as far as it matters."""

    def feed(self, chunk: bytes, *, final: bool = False) -> list[str]:
        """Return the lines that a chunk completes; with `final` also the last one, should it lack its newline."""
        *lines, rest = (self.rest + self._decode(chunk, final)).split("\n")
        self.rest = "" if final else _bounded(rest)
        return [*lines, rest] if final and rest else lines

    @property
    def draft(self) -> str:
        """What stood in the unfinished line before it was last gone back on; empty if it was not, or is not yet."""
        before, _, last = self.rest.rpartition("\r")
        return before if last else ""


def shown(raw: str, *, keep_ansi: bool = False) -> Line:
    """Return a raw line as it is seen: what was written last, without what is not printed unless that is kept."""
    seen = raw.rstrip("\r")
    _, rewritten, text = seen.rpartition("\r")
    if not keep_ansi and not text.isprintable():
        text = _UNPRINTED.sub("", text)
    return Line(readable(text, MAX_CHARS), bool(rewritten))


def _bounded(rest: str) -> str:
    """Return an unfinished line without what has been gone back on for good."""
    before, rewritten, last = rest.rpartition("\r")
    if not rewritten:
        return rest[: MAX_CHARS + 1]
    _, again, draft = before.rstrip("\r").rpartition("\r")
    return f"{again}{draft[: MAX_CHARS + 1]}\r{last[: MAX_CHARS + 1]}"
