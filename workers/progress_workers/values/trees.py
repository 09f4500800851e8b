"""Trees: any object as JSON, bounded in depth and size."""

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
"""Levels of lists and objects that are shown; broker and clients are sure to read about 240."""

_KEY_CHARS = 256
_SIMPLE = (date, time, timedelta, UUID, PurePath, Decimal, IPv4Address, IPv6Address, IPv4Network, IPv6Network)
"""What Pydantic writes as a text that can be read back."""
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset)
_ITEMS = (Sequence, Set, ValuesView, deque)


class Tree(NamedTuple):
    """A value as JSON can hold it, and what was put in the place of something else."""

    value: Any
    replaced: tuple[str, ...] = ()
    """What could not be shown as it is: names of types, mostly."""


class _Pairs(list[tuple[object, object]]):
    """The keys and values of an object."""


class _Note(str):
    """A text in the place of what can't be shown; `what` is what that was."""

    what: str

    def __new__(cls, shown: str, what: str) -> "_Note":
        note = super().__new__(cls, shown)
        note.what = what
        return note


def tree(value: object, most: int) -> Tree:
    """Return a value as JSON of at most `most` bytes can hold it; raise `TooLarge` if that is too little.

    Raises nothing else: what an object's own code raises becomes a note.
    """
    walk = _Walk(most)
    try:
        found = walk.at(value, 0)
        size = len(orjson.dumps(found))
    except (RecursionError, MemoryError) as error:  # the caller's own stack is nearly used up
        return Tree(f"<{type_name(value)}>", (type_name(error),))
    if size > most:
        raise _too_large(most)
    return Tree(found, tuple(walk.replaced))


def pairs(value: object, most: int) -> list[tuple[object, object]] | None:
    """Return the keys and values that a mapping, or an iterable of pairs, holds; None for anything else.

    Of more than `most` the first are returned.
    """
    return attempt(_pairs_of, value, most, otherwise=lambda _: None)


class _Walk:
    """One value on its way: how much may still come of it, what it is within, and what was replaced."""

    def __init__(self, most: int) -> None:
        self.replaced: dict[str, None] = {}
        self._most = self._left = most
        self._above: set[int] = set()

    def at(self, value: object, depth: int) -> Any:
        """Return what stands for a value so many levels down."""
        self._spend(2)  # no value takes less, with the comma after it
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
            return self._held(found, depth + 1)
        finally:
            self._above.discard(id(value))

    def _held(self, found: object, depth: int) -> Any:
        if type(found) is _Pairs:
            return self._object(found, depth)
        if type(found) is list:
            return [self.at(item, depth) for item in found]
        if type(found) is _Note:
            return self._note(found, found.what)
        self._left += 2  # spent on what it stands for
        return self.at(found, depth)

    def _object(self, held: _Pairs, depth: int) -> dict[str, Any]:
        named: dict[str, Any] = {}
        taken: dict[str, int] = {}
        for key, value in held:
            name = key if type(key) is str and len(key) <= _KEY_CHARS and key.isascii() else _key(key)
            if name in named:  # as of 1 and "1"
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
    return TooLarge(f"it takes more than the {most:,} bytes of JSON that are allowed")


def _opened(value: object, most: int) -> object:
    """Return what a value holds: pairs, a list, or what stands for it; None for more than `most` items.

    This is where users' code may be called. Known types are asked by their own methods, whatever a subclass does.
    """
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)  # of an enum member it is the value
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
    if hasattr(kind, "dtype") and hasattr(kind, "tolist"):  # NumPy's, and those made after it
        return value.tolist() if prod(value.shape) <= most else None
    if issubclass(kind, array.array):
        return value.tolist() if len(value) <= most else None
    if issubclass(kind, Mapping):
        held = _pairs_of(value, most + 1)
        return _Pairs(held) if len(held) <= most else None
    if issubclass(kind, UserString):
        return text(value, most * 2 + 1)
    if issubclass(kind, _ITEMS):
        items = list(islice(iter(value), most + 1))
        return items if len(items) <= most else None
    return _described(value, kind)


def _model(value: BaseModel) -> object:
    """Return what a model shows of itself: it may leave fields out, or hide them."""
    dump = type(value).model_dump
    return attempt(
        lambda: dump(value, mode="json", warnings=False),
        otherwise=lambda _: dump(value, mode="python", warnings=False),  # with all that is no JSON as it is
    )


def _described(value: object, kind: type) -> str:
    """Return the text of an object that holds nothing that can be shown."""
    if issubclass(kind, BaseException):
        return text(f"{type_name(value)}: {text(value)}")
    if issubclass(kind, Iterator) or (kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__):
        return _Note(f"<{type_name(value)}>", type_name(value))
    return _Note(text(value), type_name(value))


def _unopened(value: object, error: BaseException) -> _Note:
    return _Note(f"<{type_name(value)}: it can't be shown ({type_name(error)})>", type_name(value))


def _pairs_of(value: Any, most: int) -> list[tuple[object, object]]:
    if issubclass(type(value), dict):
        return list(islice(dict.items(value), most))
    held = value.items() if issubclass(type(value), Mapping) else value
    return [(key, each) for key, each in islice(iter(held), most)]


def _key(value: object) -> str:
    """Return the key of an object as a text."""
    if issubclass(type(value), Enum):
        value = attempt(lambda: value.value, otherwise=lambda _: value)  # type: ignore[attr-defined]
    if value is None or type(value) is bool:
        return orjson.dumps(value).decode()
    return brief(value) if type(value) is tuple else text(value, _KEY_CHARS)
