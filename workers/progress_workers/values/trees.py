"""Trees: turns any object into JSON, with limits on depth and size."""

import array
from collections import UserString, deque
from collections.abc import Iterator, Mapping, Sequence, Set, ValuesView
from dataclasses import fields
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from math import isfinite, prod
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from progress_broker.errors import TooLarge
from progress_workers.values.guard import attempt
from progress_workers.values.texts import brief, bytes_text, text, type_name

MAX_DEPTH = 200
"""How many levels of lists and objects are shown; the broker and its clients can read about 240."""

_KEY_CHARS = 256
_SIMPLE = (date, time, timedelta, UUID, PurePath, Decimal, IPv4Address, IPv6Address, IPv4Network, IPv6Network)
"""Types that Pydantic writes as a text that can be read back."""
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset)
_ITEMS = (Sequence, Set, ValuesView, deque)


class Tree(NamedTuple):
    """A value as JSON can hold it, and what was replaced in it."""

    value: Any
    replaced: tuple[str, ...] = ()
    """Descriptions of the parts that were replaced by text; mostly names of types."""


class _Pairs(list[tuple[object, object]]):
    """The keys and values of one object."""


class _Note(str):
    """A text that replaces a value that can't be shown; `what` describes that value."""

    what: str

    def __new__(cls, shown: str, what: str) -> "_Note":
        note = super().__new__(cls, shown)
        note.what = what
        return note


def tree(value: object, most: int) -> Tree:
    """Return a value as JSON of at most `most` bytes; raise `TooLarge` if it needs more.

    Raises nothing else: if an object's own code raises, a note replaces the object.
    """
    walk = _Walk(most)
    try:
        found = walk.at(value, 0)
        size = len(orjson.dumps(found))
    except (RecursionError, MemoryError) as error:  # the caller has nearly used up the stack
        return Tree(f"<{type_name(value)}>", (type_name(error),))
    if size > most:
        raise _too_large(most)
    return Tree(found, tuple(walk.replaced))


def pairs(value: object, most: int) -> list[tuple[object, object]] | None:
    """Return the keys and values of a mapping, or of an iterable of pairs; None for anything else.

    If there are more than `most`, only the first ones are returned.
    """
    return attempt(_pairs_of, value, most, otherwise=lambda _: None)


class _Walk:
    """The conversion of one value: the remaining size, the objects around the current one, and what was replaced."""

    def __init__(self, most: int) -> None:
        self.replaced: dict[str, None] = {}
        self._most = self._left = most
        self._above: set[int] = set()

    def at(self, value: object, depth: int) -> Any:
        """Return the JSON for a value at this depth."""
        self._spend(2)  # the smallest value and its comma take two bytes
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if value is None or kind is bool:
            return value
        if kind is int or kind is float:
            return self._number(value)  # type: ignore[arg-type]
        if id(value) in self._above:
            return self._note(f"<{type_name(value)} that contains itself>", "an object that contains itself")
        if depth > MAX_DEPTH:
            return self._note(f"<{type_name(value)}: nests too deep>", "what nests too deep")
        found = attempt(_opened, value, self._left // 2, otherwise=lambda error: _unopened(value, error))
        if found is None:
            raise _too_large(self._most)
        self._above.add(id(value))
        try:
            return self._convert_found(found, depth + 1)
        finally:
            self._above.discard(id(value))

    def _convert_found(self, found: object, depth: int) -> Any:
        if type(found) is _Pairs:
            return self._object(found, depth)
        if type(found) is list:
            return [self.at(item, depth) for item in found]
        if type(found) is _Note:
            return self._note(found, found.what)
        self._left += 2  # the replacement counts these bytes again
        return self.at(found, depth)

    def _object(self, items: _Pairs, depth: int) -> dict[str, Any]:
        named: dict[str, Any] = {}
        taken: dict[str, int] = {}
        for key, value in items:
            name = key if type(key) is str and len(key) <= _KEY_CHARS and key.isascii() else _key(key)
            if name in named:  # for example 1 and "1"
                taken[name] = taken.get(name, 1) + 1
                name = f"{name} ({taken[name]})"
            self._spend(len(name) + 3)
            named[name] = self.at(value, depth)
        return named

    def _text(self, value: str) -> str:
        self._spend(len(value))
        return text(value, len(value))

    def _number(self, value: float) -> Any:
        if type(value) is float:
            if isfinite(value):
                return value
            shown = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
            return self._note(shown, shown)
        return value if -(1 << 63) <= value < 1 << 64 else text(value)

    def _note(self, shown: str, what: str) -> str:
        if len(self.replaced) < 8:
            self.replaced[what] = None
        return self._text(str(shown))

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _too_large(self._most)


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the value exceeds the limit of {most:,} bytes of JSON")


def _opened(value: object, most: int) -> object:
    """Return the content of a value: pairs, a list, or a replacement; None for more than `most` items.

    The user's code may be called here. Known types are read with their base class's methods, not with a subclass's.
    """
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)  # for an enum member this is the value
    if issubclass(kind, int):
        return int.__int__(value)  # type: ignore[arg-type]
    if issubclass(kind, float):
        return float.__float__(value)  # type: ignore[arg-type]
    if issubclass(kind, bytes | bytearray | memoryview):
        shown = bytes_text(value)  # type: ignore[arg-type]
        return _Note(shown, "bytes") if shown.startswith("<") else shown
    if issubclass(kind, dict):
        return _Pairs(dict.items(value)) if dict.__len__(value) <= most else None  # type: ignore[arg-type]
    for known in _COLLECTIONS:
        if issubclass(kind, known):
            return list(known.__iter__(value)) if known.__len__(value) <= most else None
    return _object_opened(value, kind, most)


def _object_opened(value: Any, kind: type, most: int) -> object:
    if issubclass(kind, Enum):
        return value.value
    if issubclass(kind, _SIMPLE):
        return to_jsonable_python(value)
    if issubclass(kind, BaseModel):
        return _model(value)
    if hasattr(kind, "__dataclass_fields__"):
        return _Pairs((field.name, getattr(value, field.name)) for field in fields(value))
    if hasattr(kind, "dtype") and hasattr(kind, "tolist"):  # NumPy arrays, and types modelled on them
        return value.tolist() if prod(value.shape) <= most else None
    if issubclass(kind, array.array):
        return value.tolist() if len(value) <= most else None
    if issubclass(kind, Mapping):
        items = _pairs_of(value, most + 1)
        return _Pairs(items) if len(items) <= most else None
    if issubclass(kind, UserString):
        return text(value, most * 2 + 1)
    if issubclass(kind, _ITEMS):
        items = list(islice(iter(value), most + 1))
        return items if len(items) <= most else None
    return _described(value, kind)


def _model(value: BaseModel) -> object:
    """Return a model's own dump: the model may leave out or hide fields."""
    dump = type(value).model_dump
    return attempt(
        lambda: dump(value, mode="json", warnings=False),
        otherwise=lambda _: dump(value, mode="python", warnings=False),  # keeps values that are not JSON
    )


def _described(value: object, kind: type) -> str:
    """Return the text of an object without content that can be shown."""
    if issubclass(kind, BaseException):
        return text(f"{type_name(value)}: {text(value)}")
    if issubclass(kind, Iterator) or (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__):
        return _Note(f"<{type_name(value)}>", type_name(value))
    return _Note(text(value), type_name(value))


def _unopened(value: object, error: BaseException) -> _Note:
    return _Note(f"<{type_name(value)}: reading it failed ({type_name(error)})>", type_name(value))


def _pairs_of(value: Any, most: int) -> list[tuple[object, object]]:
    if issubclass(type(value), dict):
        return list(islice(dict.items(value), most))
    items = value.items() if issubclass(type(value), Mapping) else value
    return [(key, item) for key, item in islice(iter(items), most)]


def _key(value: object) -> str:
    """Return an object's key as a text."""
    if issubclass(type(value), Enum):
        value = attempt(lambda: value.value, otherwise=lambda _: value)  # type: ignore[attr-defined]
    if value is None or type(value) is bool:
        return orjson.dumps(value).decode()
    return brief(value) if type(value) is tuple else text(value, _KEY_CHARS)
