"""Bodies of requests: read whole, within a size and a time, or as lines that may go on for ever."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from progress_broker.errors import RequestTimeout, TooLarge
from progress_broker.model.validation import invalid, read_json
from progress_server.context import context_of

M = TypeVar("M", bound=BaseModel)

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
SILENCE_S = 300.0
"""How long a body that is streamed may say nothing; as long as proxies wait for us."""

SLOWEST_BYTES_PER_S = 16_384
"""A body may take the request's timeout, and longer only as far as it keeps this pace."""


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """Yield a body as it comes; raise `RequestTimeout` if nothing comes for long."""
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(SILENCE_S):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RequestTimeout(f"nothing came for {SILENCE_S:g} s: send an empty line now and then") from None
        yield chunk


async def read_body(request: Request, limit: int) -> bytes:
    """Return the request's body. Raise `TooLarge` as soon as it is known to be longer than `limit` bytes, and
    `RequestTimeout` if it comes too slowly."""
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said[:20]) > limit:
        raise TooLarge(f"the body is over {limit} bytes")
    timeout_s = context_of(request).settings.request_timeout_s
    latest = asyncio.get_running_loop().time() + timeout_s
    body = bytearray()
    try:
        async with asyncio.timeout_at(latest) as patience:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the body is over {limit} bytes")
                patience.reschedule(latest + len(body) / SLOWEST_BYTES_PER_S)
    except TimeoutError:
        raise RequestTimeout(f"the body came too slowly: {len(body)} bytes so far") from None
    return bytes(body)


async def read_model(request: Request, model: type[M], *, required: bool = True) -> M:
    """Return what a request's JSON body says, which may be empty if not required; raise `Invalid` or `TooLarge`."""
    body = await read_body(request, context_of(request).settings.max_body_bytes)
    try:
        return model.model_validate({} if not required and not body.strip() else read_json(body))
    except ValidationError as error:
        raise invalid(error) from None
