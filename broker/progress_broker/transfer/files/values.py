"""Bytes of Redis as members of a JSON object, and back, so that they come back exactly as they were.

What is no JSON, or no text, is written in base64, under the member's name with `64` behind it.
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from json import JSONDecoder

import orjson

_NUMBER = re.compile(rb"0|[1-9][0-9]{0,15}")
_DECODER = JSONDecoder()
_SPACE = re.compile(r"[ \t\r]*")


def is_json(data: bytes) -> bool:
    """Return whether bytes are JSON that can stand in a line as they are."""
    if b"\n" in data:
        return False
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def json_member(name: bytes, data: bytes) -> bytes:
    """Return a member with its comma, for bytes that should be JSON."""
    return b',"%b":%b' % (name, data) if is_json(data) else _base64_member(name, data)


def text_member(name: bytes, text: bytes) -> bytes:
    """Return a member with its comma, for bytes that should be text."""
    try:
        return b',"%b":%b' % (name, orjson.dumps(text.decode()))
    except UnicodeDecodeError:
        return _base64_member(name, text)


def number_member(name: bytes, digits: bytes) -> bytes:
    """Return a member with its comma, for bytes that should be a number."""
    return b',"%b":%b' % (name, digits) if _NUMBER.fullmatch(digits) else text_member(name, digits)


def _base64_member(name: bytes, data: bytes) -> bytes:
    return b',"%b64":"%b"' % (name, b64encode(data))


def members_of(line: bytes) -> dict[str, bytes]:
    """Return the members of a line that is a JSON object, each value as its bytes are; raise `ValueError`."""
    if not isinstance(orjson.loads(line), dict):
        raise ValueError("it is no JSON object")
    text, found = line.decode(), {}
    at = _after_space(text, _after_space(text, 0) + 1)
    while text[at] != "}":
        name, at = _DECODER.raw_decode(text, at)
        begin = _after_space(text, _after_space(text, at) + 1)  # past the colon
        _, at = _DECODER.raw_decode(text, begin)
        found[name] = text[begin:at].encode()
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)
    return found


def value_of(members: Mapping[str, bytes], name: str) -> bytes | None:
    """Return the bytes that a member stands for, whichever of its forms it has; None if there is none.

    Raises `ValueError` if it has another form.
    """
    value = members.get(name)
    if value is None:
        encoded = members.get(f"{name}64")
        return None if encoded is None else from_base64(encoded)
    if value[:1] == b'"':
        return text_of(value)
    if _NUMBER.fullmatch(value):
        return value
    raise ValueError(f"{name} is neither a text nor a whole number")


def data_of(members: Mapping[str, bytes], name: str) -> bytes | None:
    """Return the bytes of a member that is any JSON, or bytes that are none; None if there is no such member."""
    value, encoded = members.get(name), members.get(f"{name}64")
    return from_base64(encoded) if value is None and encoded is not None else value


def text_of(value: bytes) -> bytes:
    """Return a JSON string as UTF-8; raise `ValueError`."""
    text = orjson.loads(value)
    if not isinstance(text, str):
        raise ValueError(f"{value[:40]!r} is no string")
    return text.encode()


def from_base64(value: bytes) -> bytes:
    """Return the bytes of a JSON string in base64; raise `ValueError`."""
    try:
        return b64decode(text_of(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from None


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()
