"""What comes in: JSON read, what is wrong with it told as `Invalid`, and whether it can be shown again."""

from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import ValidationError

from progress_broker.errors import Invalid


def read_json(body: bytes) -> Any:
    """Return what a JSON text says; raise `Invalid` unless it is one (RFC 8259, in UTF-8)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"this is not JSON: {error}") from None


def invalid(error: ValidationError) -> Invalid:
    """Return a validation failure as the caller should read it: the first fault, and the field it is in."""
    fault = error.errors(include_input=False, include_url=False)[0]
    return located(fault["loc"], fault["msg"])


def located(location: Sequence[int | str], message: str) -> Invalid:
    """Return the fault of a field, given by the path to it."""
    field = ".".join(map(str, location))
    return Invalid(f"{field}: {message}" if field else message, field=field or None)


def showable(value: object) -> bool:
    """Return whether a JSON value can still be written when it stands eight levels down.

    What is stored is shown within other objects, and orjson writes 254 levels in all.
    """
    try:
        orjson.dumps([[[[[[[[value]]]]]]]])
    except (TypeError, ValueError):
        return False
    return True
