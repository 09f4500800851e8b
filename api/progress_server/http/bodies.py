"""Bodies of requests that are lines, and may go on for ever."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request

from progress_broker.errors import RequestTimeout

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
SILENCE_S = 300.0
"""How long a body that is streamed may say nothing; as long as proxies wait for us."""


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
