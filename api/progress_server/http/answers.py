"""Answers as JSON."""

from collections.abc import Mapping
from types import MappingProxyType

import orjson
from pydantic import BaseModel
from starlette.responses import Response

_NONE: Mapping[str, str] = MappingProxyType({})


def answer(body: object, status: int = 200, headers: Mapping[str, str] = _NONE) -> Response:
    """Return a model, or what JSON can hold, as a response. It is for who asked, not for a cache, unless told so."""
    content = body.model_dump_json() if isinstance(body, BaseModel) else orjson.dumps(body)
    return Response(content, status, {"Cache-Control": "no-store", **headers}, "application/json")
