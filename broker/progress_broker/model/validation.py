"""Input: parse JSON, report faults as `InvalidInput`, and check that a value can be written as JSON again."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from progress_broker.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text (RFC 8259, in UTF-8); raise `InvalidInput` if it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the input is not JSON: {error}") from None


_MODEL_TYPES = frozenset({"model_type", "model_attributes_type", "dataclass_type", "is_instance_of", "dict_type"})
_PREFIXES = ("Value error, ", "Assertion failed, ")


def validated(model: type[M], value: object) -> M:
    """Return a value as a model; raise `InvalidInput`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(error, value) from None


def invalid(error: ValidationError, value: object) -> InvalidInput:
    """Return a validation error of a value for the caller: the first fault, with the name of its field."""
    fault: Mapping[str, Any] = error.errors(include_input=False, include_url=False)[0]
    return fault_in(fault, value)


def fault_in(fault: Mapping[str, Any], value: object) -> InvalidInput:
    """Return a fault of a value, as pydantic describes it, for the caller: without the names of our types."""
    field = ".".join(map(str, _path(fault, value)))
    message = "must be a JSON object" if fault["type"] in _MODEL_TYPES else fault["msg"]
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    message = message.replace(" after validation", "")
    return InvalidInput(f"{field}: {message}" if field else message, field=field or None)


def _path(fault: Mapping[str, Any], value: Any) -> Iterator[int | str]:
    """Yield the path of a fault. Pydantic's own path also has the names of types, where there is a choice of them."""
    location: Sequence[int | str] = fault["loc"]
    for part in location:
        if isinstance(value, Mapping):
            present = part in value
        else:
            present = isinstance(part, int) and isinstance(value, Sequence) and part < len(value)
        if present:
            value = value[part]
            yield part
        elif fault["type"] == "missing":
            yield part


def check_arguments(**given: object) -> None:
    """Raise `InvalidInput` for the first argument of a call that is not what its name stands for."""
    for name, value in given.items():
        fits, expected = _ARGUMENTS[name]
        if not fits(value):
            raise InvalidInput(f"{name}: expected {expected}, not {_shown(value)}", field=name)


def texts(name: str, given: object) -> tuple[str, ...]:
    """Return an argument that is a text, or several texts; none if it is None. Raise `InvalidInput`."""
    if given is None or isinstance(given, str):
        return () if given is None else (given,)
    found = tuple(given) if isinstance(given, Iterable) else (given,)
    if wrong := [item for item in found if not isinstance(item, str)]:
        raise InvalidInput(f"{name}: expected a text, or a list of texts, not {_shown(wrong[0])}", field=name)
    return found


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_seconds_or_none(value: object) -> bool:
    return value is None or _is_seconds(value)


def _is_page(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_PAGE


MAX_PAGE = 200
"""The most operations in one page of a listing."""

_ID = (_is_text, 'the id of an operation, a text such as "import-42"')
_OPTIONAL = (_is_text_or_none, "a text, or None")
_FLAG = (lambda value: isinstance(value, bool), "True or False")
_PAGE = (_is_page, f"a number from 1 to {MAX_PAGE}")
_SECONDS = (_is_seconds_or_none, "a number of seconds, or None")
_ARGUMENTS: dict[str, tuple[Callable[[object], bool], str]] = {
    "after": (_is_text_or_none, 'the position of an event, "start", or None'),
    "by": _OPTIONAL,
    "cursor": (_is_text_or_none, "the `next_cursor` of the previous page, or None"),
    "force": _FLAG,
    "id": _ID,
    "kind": _OPTIONAL,
    "limit": _PAGE,
    "list_children": _FLAG,
    "metadata": (lambda value: value is None or isinstance(value, Mapping), "a mapping of keys to values, or None"),
    "operation": _ID,
    "owner": _OPTIONAL,
    "page_size": _PAGE,
    "parent": (_is_text_or_none, "the id of an operation, or None"),
    "patience_s": _SECONDS,
    "reason": _OPTIONAL,
    "timeout": _SECONDS,
    "timeout_s": (_is_seconds, "a number of seconds"),
    "type": (_is_text, 'the name of an event or a signal, such as "pause"'),
}


def _shown(value: object) -> str:
    """Return a value for an error; only its type, if to show it would run code of its own."""
    if not isinstance(value, str | bytes | int | float | None):
        return f"a value of type {type(value).__name__}"
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


_SHALLOW = 200
"""With fewer brackets than this, a value is not nested too deeply."""


def nestable_json(value: object) -> bytes | None:
    """Return a value as JSON; None if it could not be encoded any more when it is nested eight levels deep.

    Stored values are sent inside other objects, and orjson encodes at most 254 levels. Raises `TypeError` or
    `ValueError` for a value that can't be encoded at all.
    """
    encoded = orjson.dumps(value)
    if encoded.count(b"[") + encoded.count(b"{") < _SHALLOW:
        return encoded
    try:
        orjson.dumps([[[[[[[[value]]]]]]]])
    except (TypeError, ValueError):
        return None
    return encoded


def fits_nesting_limit(value: object) -> bool:
    """Return whether a value can be encoded as JSON when it is nested eight levels deep."""
    try:
        return nestable_json(value) is not None
    except (TypeError, ValueError):
        return False
