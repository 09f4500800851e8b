"""Shapes: checks fields that clients know against `docs/protocol.md`."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

_ROUNDS = 32

Path = tuple[int | str, ...]


def fit(model: type[BaseModel], given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields without the parts that a model rejects, and the names of those parts.

    The fields are JSON, as `tree` makes it, and are modified. The valid items of a list or an object remain.
    """
    rejected: dict[str, None] = {}
    for _ in range(_ROUNDS):
        faults = {_existing(given, path) for path in _faults(model, given)}
        if not faults:
            return given, list(rejected)
        for path in sorted(
            faults, key=_order, reverse=True
        ):  # remove the last items of a list first, so that the other indexes stay valid
            _take_out(given, path)
            rejected[".".join(map(str, path))] = None
    return {}, [*rejected, *given]


def _faults(model: type[BaseModel], given: dict[str, Any]) -> Iterable[Path]:
    try:
        model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return [fault["loc"][:-1] if fault["type"] == "missing" else fault["loc"] for fault in found]
    return ()


def _existing(given: Any, path: Path) -> Path:
    """Return the part of a path that leads to a value: Pydantic's paths may end in the name of a type."""
    value = given
    for at, part in enumerate(path):
        there = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if not there:
            return path[:at]
        value = value[part]
    return path


def _take_out(given: Any, path: Path) -> None:
    if not path:
        given.clear()  # a required field is missing, and no default exists
        return
    for part in path[:-1]:
        given = given[part]
    del given[path[-1]]


def _order(path: Path) -> list[str]:
    return [f"{part:09}" if isinstance(part, int) else part for part in path]
