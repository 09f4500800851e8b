"""Shapes: fields that clients know, held to what `docs/protocol.md` says of them."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

_ROUNDS = 32

Path = tuple[int | str, ...]


def fit(model: type[BaseModel], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the given fields without the parts that a model refuses, and the names of those parts.

    The given fields are JSON, as `tree` makes it, and are changed. What is good in a list or an object stays.
    """
    refused: dict[str, None] = {}
    for _ in range(_ROUNDS):
        faults = {_existing(given, path) for path in _faults(model, given)}
        if not faults:
            return given, list(refused)
        for path in sorted(faults, key=_order, reverse=True):  # the last of a list first: the others keep their places
            _take_out(given, path)
            refused[".".join(map(str, path))] = None
    return {}, [*refused, *given]


def _faults(model: type[BaseModel], given: dict[str, Any]) -> Iterable[Path]:
    try:
        model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return [fault["loc"][:-1] if fault["type"] == "missing" else fault["loc"] for fault in found]
    return ()


def _existing(given: Any, path: Path) -> Path:
    """Return a path as far as it leads to something: pydantic's may end in the name of a type."""
    held = given
    for at, part in enumerate(path):
        there = part in held if isinstance(held, dict) else isinstance(held, list) and isinstance(part, int)
        if not there:
            return path[:at]
        held = held[part]
    return path


def _take_out(given: Any, path: Path) -> None:
    if not path:
        given.clear()  # something is missing that can't be made up
        return
    for part in path[:-1]:
        given = given[part]
    del given[path[-1]]


def _order(path: Path) -> list[str]:
    return [f"{part:09}" if isinstance(part, int) else part for part in path]
