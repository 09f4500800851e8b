"""JSON responses."""

from collections.abc import Mapping
from types import MappingProxyType

import orjson
from pydantic import BaseModel
from starlette.responses import Response

_NONE: Mapping[str, str] = MappingProxyType({})


def answer(body: object, status: int = 200, headers: Mapping[str, str] = _NONE) -> Response:
    """Return a model or a JSON value as a response.

    `headers` can override the default `Cache-Control: no-store`, which keeps the response out of shared caches.
    """
    content = body.model_dump_json() if isinstance(body, BaseModel) else orjson.dumps(body)
    return Response(content, status, {"Cache-Control": "no-store", **headers}, "application/json")
