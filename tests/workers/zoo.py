"""Unusual values that users return, log, count and use as names. Each is created when needed; some can be used only
once.
"""

import os
import types
from collections import UserDict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from pydantic import BaseModel, SecretStr


class Unreadable:
    """Raises for every operation."""

    def __init__(self, error: type[BaseException] = RuntimeError) -> None:
        self.__dict__["error"] = error

    def _raise(self, *_: object) -> Any:
        raise self.__dict__["error"]

    __str__ = __repr__ = __iter__ = __len__ = __float__ = __int__ = __index__ = __bool__ = __hash__ = _raise
    __getitem__ = __getattr__ = __eq__ = keys = items = __format__ = _raise  # type: ignore[assignment]


class BadDict(dict[Any, Any]):
    items = keys = values = __iter__ = __getitem__ = __len__ = __repr__ = Unreadable._raise  # type: ignore[assignment]
    error = ValueError


class BadStr(str):
    __str__ = __repr__ = __len__ = __iter__ = __getitem__ = encode = Unreadable._raise  # type: ignore[assignment]
    error = ValueError


class BadInt(int):
    __int__ = __index__ = __float__ = __str__ = __repr__ = Unreadable._raise  # type: ignore[assignment]
    error = ValueError


class LyingLength(list[int]):
    def __len__(self) -> int:
        return 1 << 40


class BadKeys(UserDict[Any, Any]):
    def keys(self) -> Any:
        raise ValueError

    items = __iter__ = keys


class Plain:
    """Has no `__str__` of its own."""


class Color(Enum):
    RED = "red"


@dataclass
class Row:
    id: int = 7
    odd: object = field(default_factory=Plain)


class Model(BaseModel, arbitrary_types_allowed=True):
    count: object = field(default_factory=lambda: np.int64(3))
    secret: SecretStr = SecretStr("hunter2")
    raw: bytes = b"\xff"


Pair = namedtuple("Pair", "x y")


def _cycle() -> list[Any]:
    cycle: list[Any] = [1]
    cycle.append({"again": cycle})
    return cycle


def _deep(levels: int = 50_000) -> list[Any]:
    deep: list[Any] = []
    for _ in range(levels):
        deep = [deep]
    return deep


def _laughs() -> list[Any]:
    laughs: list[Any] = ["ha"] * 10
    for _ in range(20):
        laughs = [laughs] * 10
    return laughs


def _endless() -> Iterator[int]:
    n = 0
    while True:
        yield n
        n += 1


class Endless:
    """A mapping of infinite size and depth."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, _endless())

    def __getitem__(self, key: object) -> "Endless":
        return Endless()

    def keys(self) -> Iterator[str]:
        return iter(self)

    def items(self) -> Iterator[tuple[str, "Endless"]]:
        return ((key, Endless()) for key in self)


ZOO: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "true": lambda: True,
    "number": lambda: 3,
    "negative": lambda: -7,
    "zero": lambda: 0,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "minus-inf": lambda: float("-inf"),
    "too-large": lambda: 1e300,
    "66-bits": lambda: 1 << 65,
    "66,000-bits": lambda: 1 << 66_000,
    "decimal": lambda: Decimal("1.5"),
    "decimal-nan": lambda: Decimal("sNaN"),
    "fraction": lambda: Fraction(1, 3),
    "complex": lambda: 1 + 2j,
    "numpy-int": lambda: np.int64(3),
    "numpy-float": lambda: np.float32(1.5),
    "numpy-nan": lambda: np.float64("nan"),
    "numpy-bool": lambda: np.bool_(True),
    "numpy-array": lambda: np.arange(6).reshape(2, 3),
    "numpy-objects": lambda: np.array([Plain(), b"\xff"], dtype=object),
    "numpy-huge": lambda: np.zeros((1000, 1000)),
    "numpy-time": lambda: np.datetime64("2026-11-29"),
    "text": lambda: "text",
    "empty": lambda: "",
    "number-text": lambda: "ten",
    "long": lambda: "x" * 1_000_000,
    "surrogates": lambda: os.fsdecode(b"caf\xe9.txt"),
    "surrogate-pair": lambda: "\ud83d\ude00",
    "controls": lambda: "a\x00b\x1b[31m\n\u202e",
    "bytes": lambda: b"\xff",
    "utf8-bytes": lambda: "é".encode(),
    "many-bytes": lambda: bytes(range(256)) * 1000,
    "bytearray": lambda: bytearray(b"\xff\xfe"),
    "memoryview": lambda: memoryview(b"abc"),
    "list": lambda: [1, "a", None, {"b": [2.5]}],
    "set": lambda: {1, 2},
    "frozenset": lambda: frozenset("a"),
    "deque": lambda: deque([1]),
    "range": lambda: range(10**30),
    "namedtuple": lambda: Pair(1, 2),
    "dict": lambda: {"a": 1},
    "odd-keys": lambda: {("a", 1): 1, 2: 2, "2": 3, None: 4, b"\xff": 5, "\udce9": 6, Plain: 7},
    "mapping": lambda: types.MappingProxyType({"a": 1}),
    "dataclass": Row,
    "model": Model,
    "datetime": lambda: datetime(2026, 11, 29, tzinfo=UTC),
    "timedelta": lambda: timedelta(seconds=3),
    "uuid": lambda: UUID(int=7),
    "path": lambda: Path(os.fsdecode(b"/tmp/caf\xe9")),
    "enum": lambda: Color.RED,
    "exception": lambda: ValueError("no"),
    "class": lambda: Plain,
    "object": Plain,
    "iterator": lambda: iter([1, 2]),
    "generator": _endless,
    "function": lambda: len,
    "cycle": _cycle,
    "deep": _deep,
    "laughs": _laughs,
    "huge": lambda: [0] * 3_000_000,
    "endless": Endless,
    "unreadable": Unreadable,
    "unreadable-base": lambda: Unreadable(GeneratorExit),
    "unreadable-recursion": lambda: Unreadable(RecursionError),
    "unreadable-memory": lambda: Unreadable(MemoryError),
    "bad-dict": lambda: BadDict(a=1),
    "bad-str": lambda: BadStr("x"),
    "bad-int": lambda: BadInt(5),
    "bad-keys": lambda: BadKeys(a=1),
    "lying-length": lambda: LyingLength([1, 2]),
}
"""The factories of the values, by name."""
