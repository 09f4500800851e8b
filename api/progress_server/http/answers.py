"""JSON responses, and whether a client already has one (RFC 9110, 13.1.2)."""

import re
from collections.abc import Mapping
from types import MappingProxyType

import orjson
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import Response

_TAG = re.compile(r'(?:W/)?("[^"]*")')

_NONE: Mapping[str, str] = MappingProxyType({})


def answer(body: object, status: int = 200, headers: Mapping[str, str] = _NONE) -> Response:
    """Return a model or a JSON value as a response.

    `headers` can override the default `Cache-Control: no-store`, which keeps the response out of shared caches.
    """
    content = body.model_dump_json() if isinstance(body, BaseModel) else orjson.dumps(body)
    return Response(content, status, {"Cache-Control": "no-store", **headers}, "application/json")


def has_current(headers: Headers, tag: str) -> bool:
    """Return whether a request's `If-None-Match`, on however many lines, names an `ETag` or is `*`.

    Weak tags match too: GET compares them weakly.
    """
    known = ",".join(headers.getlist("if-none-match"))
    return known.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(known)
