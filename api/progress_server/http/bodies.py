"""Request bodies: read completely, within a size and a time limit, or line by line without an end."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from progress_broker.errors import RequestTimeout, TooLarge
from progress_broker.model.validation import read_json, validated
from progress_server.context import context_of

M = TypeVar("M", bound=BaseModel)

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
SILENCE_S = 300.0
"""How long a streamed body may send nothing. Proxies usually wait equally long for our responses."""

SLOWEST_BYTES_PER_S = 16_384
"""Minimum rate: each 16 KiB that a body has sent extends its timeout, `request_timeout_s`, by one second."""


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield the parts of a body as they arrive. Raise `RequestTimeout` if nothing arrives for `SILENCE_S`."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestTimeout(
                f"nothing received for {SILENCE_S:g} s; send an empty line at intervals to keep the request open"
            ) from None
        yield chunk


async def read_body(request: Request, limit: int) -> bytes:
    """Return the complete body of a request.

    Raise `TooLarge` as soon as it is known to exceed `limit` bytes, and `RequestTimeout` if it arrives too slowly.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
        raise TooLarge(f"request body exceeds {limit} bytes (PROGRESS_MAX_BODY_BYTES)")
    timeout_s = context_of(request).settings.request_timeout_s
    latest = asyncio.get_running_loop().time() + timeout_s
    body = bytearray()
    try:
        async with asyncio.timeout_at(latest) as patience:
            more = True
            while more:  # not by `request.stream`, which costs as much as all else here
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                body += message.get("body", b"")
                if len(body) > limit:
                    raise TooLarge(f"request body exceeds {limit} bytes (PROGRESS_MAX_BODY_BYTES)")
                more = message.get("more_body", False)
                if more:
                    patience.reschedule(latest + len(body) / SLOWEST_BYTES_PER_S)
    except TimeoutError:
        raise RequestTimeout(
            f"request body arrived too slowly: only {len(body)} bytes within the timeout (PROGRESS_REQUEST_TIMEOUT_S)"
        ) from None
    return bytes(body)


async def read_model(request: Request, model: type[M], *, required: bool = True) -> M:
    """Return the JSON body of a request as a model. Without `required` the body may be empty.

    Raise `InvalidInput` or `TooLarge`.
    """
    body = await read_body(request, context_of(request).settings.max_body_bytes)
    return validated(model, {} if not required and not body.strip() else read_json(body))
