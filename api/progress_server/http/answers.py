"""JSON responses, and whether a client already has one (RFC 9110, 13.1.2)."""

import re
from collections.abc import Mapping
from hashlib import blake2s
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


def answer_if_changed(headers: Headers, body: object, same_as: object = None) -> Response:
    """Return a JSON value as a response with an `ETag`; or 304, if the request's headers name it.

    `same_as` is what the tag is made of, if not of all of the body.
    """
    tag = blake2s(orjson.dumps(body if same_as is None else same_as), digest_size=12).hexdigest()
    sent = {"ETag": f'W/"{tag}"', "Cache-Control": "private, no-cache"}
    return Response(status_code=304, headers=sent) if has_current(headers, sent["ETag"]) else answer(body, headers=sent)


def has_current(headers: Headers, tag: str) -> bool:
    """Return whether a request's `If-None-Match`, on however many lines, names an `ETag` or is `*`.

    Weak tags match too: GET compares them weakly.
    """
    known = ",".join(headers.getlist("if-none-match"))
    return known.strip() == "*" or tag.removeprefix("W/") in _TAG.findall(known)
