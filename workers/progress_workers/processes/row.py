"""One row of a terminal: characters at columns. No I/O; memory is bounded for any input."""

from io import StringIO

MAX_CHARS = 65_536
"""The longest row kept, in characters; the rest of a longer row is dropped."""
MAX_DRAFT_CHARS = 1024
"""How much of a row is examined while it is still being rewritten."""
MAX_COLUMN = 1000
"""The farthest column behind its text to which an escape sequence can move the cursor."""


class Row:
    """A row that programs write to at any column, and rewrite.

    Each character takes one column. Text that a shorter rewrite leaves to its right is dropped: the program forgot to
    erase it. A single rewritten character, such as that of a spinner, leaves the rest as it is.
    """

    __slots__ = (
        "_cells",
        "_cut",
        "_end",
        "_marks",
        "_pen",
        "_written",
        "fresh",
        "had_return",
        "length",
        "looked_at",
        "reported",
        "returned",
        "rewritten",
    )

    def __init__(self, text: str = "") -> None:
        self._cells = StringIO(text)
        self.length = len(text)
        self.fresh = False
        """Whether it has text that was not read yet."""
        self.returned = False
        """Whether the cursor went back and nothing was written since."""
        self.had_return = False
        """Whether anything was written after the cursor went back, even to an empty row."""
        self.rewritten = False
        """Whether text was replaced."""
        self.reported: str | None = None
        """Its final form, once that was reported."""
        self.looked_at: str | None = None
        """Its text when it was last looked at before it was finished."""
        self._end = self._written = 0
        self._cut = False
        self._marks: dict[int, str] = {}
        self._pen = -1

    def write(self, column: int, text: str) -> int:
        """Write text at a column, and return the column behind it."""
        room = MAX_CHARS + 1 - column
        if room < len(text):
            text = text[: max(0, room)]
        if column > self.length:
            self._cells.seek(self.length)
            self._cells.write(" " * (column - self.length))
        self._cells.seek(column)
        self._cells.write(text)
        end = column + len(text)
        if self._marks and column < self.length:
            self._marks = {at: mark for at, mark in self._marks.items() if not column < at < end}
        self.length = max(self.length, end)
        self._end, self._written, self._pen = end, self._written + len(text), -1
        self.had_return = self.had_return or self.returned
        self.fresh, self.returned = True, False
        return end

    def mark(self, column: int, escape: str) -> None:
        """Keep an escape sequence that changes how the text from this column on looks."""
        before = self._marks.get(column, "") if self._pen == column else ""
        if len(before) + len(escape) <= MAX_DRAFT_CHARS and len(self._marks) < MAX_DRAFT_CHARS:
            self._marks[column] = before + escape
            self._pen = column

    def go_back(self, *, anew: bool) -> None:
        """Note that the cursor moves back. `anew`: what is then written replaces the rest of the row, too."""
        self.settle()
        self._cut, self._written = anew, 0
        self.returned = True

    def keep_rest(self) -> None:
        """Note that the cursor moves to the right: what is then written replaces nothing but itself."""
        self._cut = False

    def settle(self) -> None:
        """Drop what a rewrite has left to its right."""
        end = self._shown_length()
        if end < self.length:
            self.erase(end, self.length)

    def erase(self, start: int, end: int) -> None:
        """Erase columns; at the end of the row, or in a very long one, all from the start on."""
        if end < self.length <= MAX_CHARS // 16:
            self._cells.seek(start)
            self._cells.write(" " * (end - start))
        elif start < self.length:
            self._cells.seek(start)
            self._cells.truncate()
            self.length = start
            self._marks = {at: mark for at, mark in self._marks.items() if at <= start}

    def text(self, most: int = MAX_CHARS + 1) -> str:
        """Return what it shows."""
        self._cells.seek(0)
        return self._cells.read(min(most, self._shown_length()))

    def styled(self) -> str:
        """Return what it shows, with the escape sequences that were kept."""
        text, parts, at = self.text(), [], 0
        for column, escape in sorted(self._marks.items()):
            parts += [text[at:column], escape]
            at = column
        return "".join([*parts, text[at:]])

    def _shown_length(self) -> int:
        return min(self._end, self.length) if self._cut and self._written > 1 else self.length
