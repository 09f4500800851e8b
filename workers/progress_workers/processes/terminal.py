"""Turns a stream of bytes into lines, as a terminal would show them. No I/O; memory is bounded for any input."""

import codecs
import re
from typing import NamedTuple

from progress_workers.processes.row import MAX_CHARS, MAX_COLUMN, MAX_DRAFT_CHARS, Row
from progress_workers.values import text as readable

MAX_ROWS = 64
"""How many rows are kept, to which the cursor can move back up."""
MAX_ESCAPE_CHARS = 4096
"""The longest escape sequence; a longer one is left out."""

_TOKEN = re.compile(
    r"""[^\x00-\x08\x0a-\x1f\x7f-\x9f]+                       # text
    |\n | \r+ | \x08+
    |\x1b\[[0-?]*[ -/]*[@-~]                                  # colours, movements of the cursor
    |\x1b[]PX^_][^\x00-\x06\x08-\x1f\x7f]*?(?:\x07|\x1b\\)    # titles, links
    |\x1b[ -/]*[0-OQ-WYZ\\`-~]                                 # character sets, modes, a kept cursor
    |(?P<open>\x1b(?:\[[0-?]*[ -/]*|[]PX^_][^\x00-\x1f\x7f]*\x1b?|[ -/]*)\Z)
    |[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]+ | \x1b   # all other control characters but the tab
    """,
    re.VERBOSE,
)
_STYLE = re.compile(r"\x1b\[[\d;:]*m|\x1b\([0-9A-Z]")
_SPECIAL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Line(NamedTuple):
    """The text of a row at a moment."""

    text: str
    row: int
    """The number of its row, from the first one on."""
    rewritten: bool = False
    """Whether the program went back in it, as progress bars do."""
    final: bool = False
    """Whether it is finished. Otherwise it is a draft: it is about to be rewritten."""
    news: bool = True
    """Whether the text was not reported before as a draft."""
    unfinished: bool = False
    """Whether more of it may follow, so that a number at its very end may be cut."""
    styled: str | None = None
    """The text with its escape sequences, if they are wanted."""


class Terminal:
    """A terminal with endless rows, of which the last ones can be rewritten.

    It knows `\\r`, backspace, erasing, and movements of the cursor. A row is final when a newline follows it. A row in
    which the cursor went back waits, because it may come back again: until another row is finished in which it did not,
    or until `settle` or `look` is called. Absolute rows, as of programs that fill a screen, are not known.
    """

    def __init__(self, *, keep_ansi: bool = False) -> None:
        self.moves_up = False
        """Whether the cursor moved up to earlier rows, as for several bars below each other."""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._keep_ansi = keep_ansi
        self._rows = [Row()]
        self._first = self._y = self._x = 0
        self._kept_x = 0
        self._open = ""
        self._waiting = False
        """Whether there are finished rows that were not reported."""
        self._edited = False
        """Whether rows that were reported have changed."""
        self._lines: list[Line] = []
        self._drafts = 0

    def feed(self, chunk: bytes, *, final: bool = False) -> list[Line]:
        """Return what a chunk makes known, in order. With `final`, nothing follows."""
        text = self._open + self._decode(chunk, final)
        self._open = ""
        if "\r\n" in text:
            text = text.replace("\r\n", "\n")
        if "\x1b" in text and not self._keep_ansi:
            text = _STYLE.sub("", text)
        # At the end of the last row, erasing the rest of it does nothing: `grep` does it after each match.
        plain = text.replace("\x1b[K", "") if self._at_end else text
        if self._at_end and _SPECIAL.search(plain) is None:
            self._take_plain(plain)
        else:
            self._take(text)
        if final:
            self._finish()
        return self._news()

    def look(self) -> list[Line]:
        """Return what is known now that nothing has come for a moment."""
        lines = self.settle()
        if self._y == len(self._rows) - 1:
            self.moves_up = False
        row = self._row
        text = row.text(MAX_DRAFT_CHARS)
        if row.fresh and text != row.looked_at:
            row.looked_at = text
            rewritten = row.rewritten or row.had_return or row.returned
            lines.append(Line(text, self._number, rewritten, unfinished=not row.returned))
        return lines

    def settle(self) -> list[Line]:
        """Return the rows above the cursor that waited, although the cursor may still come back to them."""
        if self._waiting:
            self._waiting = self._y < len(self._rows) - 1
            for y in range(self._y):
                if self._rows[y].reported is None:
                    self._report(y)
        return self._news()

    def _news(self) -> list[Line]:
        lines, self._lines, self._drafts = self._lines, [], 0
        return lines

    @property
    def _row(self) -> Row:
        return self._rows[self._y]

    @property
    def _at_end(self) -> bool:
        return self._y == len(self._rows) - 1 and self._x == self._row.length and not self.moves_up

    @property
    def _number(self) -> int:
        return self._first + self._y

    def _take_plain(self, text: str) -> None:
        """Take text without control characters but newlines and tabs, at the end of the last row."""
        first, *others = text.split("\n")
        self._write(first)
        if not others:
            return
        self._newline()
        *lines, rest = others
        if lines:
            self._report_all(self._y)
        number = self._number
        self._lines += [Line(readable(line, MAX_CHARS), number + i, final=True) for i, line in enumerate(lines)]
        if lines:
            kept = [Row(line[: MAX_CHARS + 1]) for line in lines[-MAX_ROWS + 1 :]]
            for row in kept:
                row.reported = row.text()
            self._rows = [*self._rows[:-1], *kept, Row()][-MAX_ROWS:]
            self._first = number + len(lines) + 1 - len(self._rows)
            self._y = len(self._rows) - 1
        self._write(rest)

    def _take(self, text: str) -> None:
        for token in _TOKEN.finditer(text):
            piece = token[0]
            match piece[0]:
                case "\n":
                    self._newline()
                case "\r":
                    self._go_to(0, anew=True)
                case "\b":
                    self._go_to(max(0, self._x - len(piece)), anew=True)
                case "\x1b":
                    if token["open"] and len(piece) <= MAX_ESCAPE_CHARS:
                        self._open = piece
                    else:
                        self._escape(piece)
                case control if control != "\t" and (control < " " or "\x7f" <= control <= "\x9f"):
                    pass
                case _:
                    self._write(piece)

    def _write(self, text: str) -> None:
        if not text:
            return
        row = self._row
        if row.returned and self._x < row.length:
            self._change(row)
        self._edited = self._edited or row.reported is not None
        self._x = row.write(self._x, text)

    def _change(self, row: Row) -> None:
        """Report the row as it is: what follows changes it."""
        self._draft(row)
        row.rewritten = True

    def _draft(self, row: Row) -> None:
        if not row.fresh:
            return
        row.fresh = False
        self._add_draft(row.text(MAX_DRAFT_CHARS), self._number)

    def _add_draft(self, text: str, number: int) -> None:
        self._lines.append(Line(text, number, rewritten=True))
        self._drafts += 1
        if self._drafts > 2 * MAX_ROWS:  # only the newest matter
            self._drafts = MAX_ROWS
            del self._lines[-2 * MAX_ROWS - 1 : -MAX_ROWS]

    def _go_to(self, column: int, *, anew: bool = False) -> None:
        """Move the cursor in its row."""
        row = self._row
        if column < self._x or (self._x == 0 and anew):
            row.go_back(anew=anew)
            if row.rewritten or self.moves_up:
                self._draft(row)
        elif column > self._x:
            row.keep_rest()
        self._x = min(column, max(row.length, MAX_COLUMN))

    def _newline(self) -> None:
        row = self._row
        row.settle()
        self._x = 0
        if self._y < len(self._rows) - 1:
            self._draft(row)
            self._y += 1
            return
        if self.moves_up or row.had_return:
            self._draft(row)
            self._waiting = True
        else:
            self._report_all(self._y)
            self._report(self._y)
        self._rows.append(Row())
        self._y += 1
        if len(self._rows) > MAX_ROWS:
            self._report(0)
            del self._rows[0]
            self._first += 1
            self._y -= 1

    def _report_all(self, before: int) -> None:
        """Report the rows before one, because the program goes on below them."""
        if self._waiting or self._edited:
            self._waiting = self._edited = False
            for y in range(before):
                self._report(y)

    def _report(self, y: int) -> None:
        """Report a finished row, unless it was reported as it is."""
        row = self._rows[y]
        text = row.text()
        if row.reported == text:
            return
        row.reported = text
        styled = readable(row.styled(), MAX_CHARS) if self._keep_ansi else None
        shown = readable(text, MAX_CHARS)
        line = Line(shown, self._first + y, row.rewritten, final=True, news=row.fresh, styled=styled)
        row.fresh = False
        self._lines.append(line)
        self._drafts = 0

    def _finish(self) -> None:
        last = len(self._rows) - 1
        for y, row in enumerate(self._rows):
            row.settle()
            if y < self._y or (y <= last and row.length):
                self._report(y)

    def _escape(self, escape: str) -> None:
        if not escape.startswith("\x1b["):
            if escape == "\x1b7":
                self._kept_x = self._x
            elif escape == "\x1b8":
                self._go_to(self._kept_x, anew=True)
            elif escape == "\x1bM":
                self._move_up(1, self._x)
            elif self._keep_ansi and len(escape) > 1:
                self._row.mark(self._x, escape)
            return
        kind, given = escape[-1], escape[2:-1]
        if kind == "m":
            if self._keep_ansi:
                self._row.mark(self._x, escape)
            return
        numbers = [int(number[:6]) if number.isdecimal() else 0 for number in given.split(";")]
        n = max(1, numbers[0])
        match kind:
            case "A" | "F":
                self._move_up(n, 0 if kind == "F" else self._x)
            case "B" | "E":
                self._move_down(n, 0 if kind == "E" else self._x)
            case "C":
                self._go_to(self._x + n)
            case "D":
                self._go_to(max(0, self._x - n), anew=True)
            case "G" | "`":
                self._go_to(n - 1)
            case "s" if not given:
                self._kept_x = self._x
            case "u" if not given:
                self._go_to(self._kept_x, anew=True)
            case "H" | "f":
                self._go_to(max(1, numbers[1] if len(numbers) > 1 else 1) - 1, anew=True)
            case "X":
                self._erase(self._x, self._x + n)
            case "K" | "J":
                self._erase(self._x if numbers[0] == 0 else 0, self._x + 1 if numbers[0] == 1 else MAX_CHARS + 1)
                if kind == "J":
                    self._erase_rows(numbers[0])

    def _move_up(self, rows: int, column: int) -> None:
        self.moves_up = True
        self._leave()
        self._y, self._x = max(0, self._y - rows), column

    def _move_down(self, rows: int, column: int) -> None:
        self._leave()
        while rows > 0 and self._y < len(self._rows) - 1:
            self._y += 1
            rows -= 1
        for _ in range(min(rows, MAX_ROWS)):
            self._newline()
        self._x = column

    def _leave(self) -> None:
        row = self._row
        row.go_back(anew=False)
        self._draft(row)

    def _erase(self, start: int, end: int) -> None:
        """Erase columns of the row."""
        row = self._row
        row.settle()
        if start < row.length:
            self._change(row)
            row.erase(start, min(end, row.length))
            row.fresh = True
            self._x = min(self._x, max(row.length, MAX_COLUMN))

    def _erase_rows(self, what: int) -> None:
        for y in range(self._y + 1 if what == 0 else 0, len(self._rows)):
            if self._rows[y].length:
                self._rows[y].erase(0, self._rows[y].length)
                self._add_draft("", self._first + y)
