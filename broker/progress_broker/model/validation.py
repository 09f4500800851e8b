"""Input: parse JSON, report faults as `InvalidInput`, and check that a value can be written as JSON again."""

from collections.abc import Iterator, Mapping, Sequence
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
