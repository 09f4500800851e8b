"""A contender: sse-starlette with a queue per client, as in its README. Each event is encoded once for all clients."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

app = FastAPI()
clients: set[asyncio.Queue[ServerSentEvent]] = set()


@app.get("/stream", response_model=None)
async def stream() -> EventSourceResponse:
    queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    clients.add(queue)
    return EventSourceResponse(_events(queue), sep="\n")


async def _events(queue: asyncio.Queue[ServerSentEvent]) -> AsyncIterator[ServerSentEvent]:
    try:
        while True:
            yield await queue.get()
    finally:
        clients.discard(queue)


@app.post("/publish")
async def publish(request: Request) -> dict[str, int]:
    """Accept an event or a list of events."""
    body = orjson.loads(await request.body())
    for data in body if isinstance(body, list) else [body]:
        event = _event(data)
        for queue in clients:
            queue.put_nowait(event)
    return {"clients": len(clients)}


def _event(data: dict[str, Any]) -> ServerSentEvent:
    text = orjson.dumps(data).decode()
    return ServerSentEvent(text, event="progress", id=str(data["seq"]), sep="\n")
