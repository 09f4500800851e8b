"""Metadata: what an application notes about an operation, as a JSON object. No I/O happens here.

Some of it can be searched by, and grants can name it: values that are text, numbers or booleans, and not too long.
`lua/metadata.lua` says the same; a test compares the two.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from progress_broker.errors import TooLarge

MAX_METADATA_BYTES: Final = 16_384
"""The largest metadata of an operation, as JSON."""
MAX_INDEXED: Final = 16
"""How many values of an operation can be searched by: the first ones in the order of their keys."""
MAX_INDEXED_BYTES: Final = 128
"""The longest value that can be searched by, in bytes of UTF-8."""
INDEXED_KEY: Final = r"[A-Za-z0-9_.-]{1,64}"
"""Keys whose values can be searched by."""

FIELD: Final = "metadata"
"""The name of the index."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def indexed(metadata: Mapping[str, Any]) -> list[str]:
    """Return the values that can be searched by, each as `key=value`. Text and a number that look alike are equal."""
    return list(_indexed(metadata))[:MAX_INDEXED] if metadata else []


def _indexed(metadata: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(metadata):
        if re.fullmatch(INDEXED_KEY, key) is not None and (text := index_text(metadata[key])) is not None:
            yield f"{key}={text}"


def index_text(value: object) -> str | None:
    """Return the text by which a value can be searched: text as it is, others as JSON; None if it can't be."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool | int | float):
        try:
            text = orjson.dumps(value).decode()
        except TypeError:  # more than 64 bits
            return None
        if text == "null":  # not a finite number
            return None
    else:
        return None
    return text if 0 < len(text.encode()) <= MAX_INDEXED_BYTES and _CONTROL.search(text) is None else None


def terms(key: str, values: Iterable[object]) -> Iterator[str]:
    """Yield each value of a key as `key=value`; raise `ValueError` for one that can't be searched by."""
    if not isinstance(key, str) or re.fullmatch(INDEXED_KEY, key) is None:
        raise ValueError(f"{str(key)[:80]!r} is no key of metadata to search by: use 1 to 64 of A-Z, a-z, 0-9, _ . -")
    for value in values:
        text = index_text(value)
        if text is None:
            raise ValueError(
                f"the value of {key} in metadata to search by is a number, true, false or text of 1 to"
                f" {MAX_INDEXED_BYTES} bytes without control characters"
            )
        yield f"{key}={text}"


def merged(metadata: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata after a change: each key replaces the one before, and None removes it."""
    return {key: value for key, value in {**metadata, **changes}.items() if value is not None}


def check_size(encoded: bytes) -> bytes:
    """Return metadata as JSON; raise `TooLarge`."""
    if len(encoded) > MAX_METADATA_BYTES:
        raise TooLarge(f"the metadata has {len(encoded)} bytes; at most {MAX_METADATA_BYTES} are allowed", field=FIELD)
    return encoded
