"""Texts: turns any value into characters that UTF-8 can encode."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from progress_broker.model.operation import MAX_LABEL_CHARS
from progress_workers.values.guard import attempt

MAX_CHARS = 4096
"""The longest text of a message, a log line or an error; longer ones are cut."""
_FIRST_BYTES = 16
_MAX_LEVELS = 50
_BRACKETS: dict[type, str] = {list: "[]", tuple: "()", set: "{}", dict: "{}"}


def text(value: object, most: int = MAX_CHARS) -> str:
    """Return a value as a text of at most `most` characters. Never raises."""
    found = value if type(value) is str else _text_of(value, most)
    if len(found) > most:
        found = found[: most - 1] + "…"
    if found.isascii():
        return found
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # this also joins surrogate pairs


def label(value: object, most: int = MAX_LABEL_CHARS) -> str:
    """Return a value as one printable line, as kinds, owners and tags must be. It may be empty."""
    found = text(value, most)
    return found if found.isprintable() else "".join(map(_printable, found))


def brief(value: object) -> str:
    """Return a value's `repr`, cut, for a warning."""
    return label(_Shown(64).add(value), 64)


def type_name(value: object) -> str:
    """Return the name of a value's type."""
    return text(attempt(lambda: type(value).__qualname__, otherwise=lambda _: "object"), 256)


def bytes_text(value: bytes | bytearray | memoryview) -> str:
    """Return bytes decoded as UTF-8; if they are not UTF-8, their number and the first few."""
    data = bytes(value)
    try:
        return data.decode()
    except UnicodeDecodeError:
        more = " …" if len(data) > _FIRST_BYTES else ""
        unit = "byte" if len(data) == 1 else "bytes"
        return f"<{len(data):,} {unit}: {data[:_FIRST_BYTES].hex(' ')}{more}>"


def _text_of(value: object, most: int) -> str:
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)  # not the subclass's own `__str__`; for an enum member this is the value
    if issubclass(kind, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")  # type: ignore[call-overload, no-any-return]
    if kind in _BRACKETS:
        return _Shown(most).add(value)
    found = attempt(str, value, otherwise=lambda error: _unreadable(value, error))
    return found if type(found) is str else str.__str__(found)


class _Shown:
    """A value as `repr` shows it, but stopped at `most` characters, or where it nests too deep."""

    def __init__(self, most: int) -> None:
        self._left = most

    def add(self, value: object, above: tuple[int, ...] = ()) -> str:
        """Return the text of a value; `above` has the ids of the objects that contain it."""
        brackets = _BRACKETS.get(type(value))
        if not brackets or not value:
            shown = attempt(repr, value, otherwise=lambda error: _unreadable(value, error))
            self._left -= len(shown) + 2
            return shown
        if id(value) in above or len(above) == _MAX_LEVELS:
            return f"{brackets[0]}…{brackets[1]}"
        shown = ", ".join(self._items(value, (*above, id(value))))
        end = "," if type(value) is tuple and len(value) == 1 else ""
        return f"{brackets[0]}{shown}{end}{brackets[1]}"

    def _items(self, value: Any, above: tuple[int, ...]) -> Iterator[str]:
        pairs = type(value) is dict
        # A copy, because another thread may change the value meanwhile.
        for item in list(islice(value.items() if pairs else value, max(0, self._left) + 1)):
            if self._left < 0:
                yield "…"
                return
            self._left -= 2
            yield f"{self.add(item[0], above)}: {self.add(item[1], above)}" if pairs else self.add(item, above)


def _unreadable(value: object, error: BaseException) -> str:
    if issubclass(type(value), int):
        bits = int.bit_length(value)  # type: ignore[arg-type]
        return int.__repr__(value) if bits < 1000 else f"<an integer of {bits:,} bits>"
    return f"<{type_name(value)}: str() failed ({type_name(error)})>"


def _printable(char: str) -> str:
    return char if char.isprintable() else " " if char.isspace() else "\N{REPLACEMENT CHARACTER}"
