"""Input: parse JSON, report faults as `InvalidInput`, and check that a value can be written as JSON again."""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from progress_broker.errors import InvalidInput


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text (RFC 8259, in UTF-8); raise `InvalidInput` if it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the input is not JSON: {error}") from None


def invalid(error: ValidationError) -> InvalidInput:
    """Return a validation error for the caller: the first fault, with the name of its field."""
    fault = error.errors(include_input=False, include_url=False)[0]
    return located(fault["loc"], fault["msg"])


def located(location: Sequence[int | str], message: str) -> InvalidInput:
    """Return the error for a field, which is given by its path."""
    field = ".".join(map(str, location))
    return InvalidInput(f"{field}: {message}" if field else message, field=field or None)


def fits_nesting_limit(value: object) -> bool:
    """Return whether a JSON value can be encoded when it is nested eight levels deep.

    Stored values are sent inside other objects, and orjson encodes at most 254 levels.
    """
    try:
        orjson.dumps([[[[[[[[value]]]]]]]])
    except (TypeError, ValueError):
        return False
    return True
