"""The ASGI outlet: a subscription's frames as an `EventSourceResponse`, on any ASGI server."""

import asyncio
from collections.abc import AsyncIterator

import anyio
from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from broker.outlet import TEXT
from broker.subscription import Subscription

HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class AsgiOutlet:
    """Holds what the server has not taken yet: `limit` bytes, and at most one write over."""

    encoding = TEXT

    def __init__(self, subscription: Subscription, limit: int) -> None:
        self.aborted = anyio.CancelScope()
        self._subscription = subscription
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self._closed = False
        self._news = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Take what is to be sent."""
        self._chunks.append(data)
        self._size += len(data)
        self._news.set()
        if self._size >= self._limit:
            self._subscription.filled()

    def close(self) -> None:
        """End the response after what it holds."""
        self._closed = True
        self._news.set()

    def abort(self) -> None:
        """End the response now."""
        self.aborted.cancel()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what there is, joined, whenever there is something; the subscription goes on when it has been sent."""
        self._subscription.attach(self)
        while True:
            await self._news.wait()
            self._news.clear()
            if self._chunks:
                data = b"".join(self._chunks)
                self._chunks.clear()
                self._size = 0
                yield data
                self._subscription.drained()
            if self._closed and not self._chunks:
                return


class AsgiStream(EventSourceResponse):
    """A subscription's life as an ASGI response: however it ends, the subscription ends with it."""

    def __init__(self, subscription: Subscription, limit: int) -> None:
        self._subscription = subscription
        self._outlet = AsgiOutlet(subscription, limit)
        # Pings come from the wheel, one task for all streams.
        super().__init__(self._outlet.chunks(), headers=HEADERS, ping=0, sep="\n")
        del self.headers["connection"]  # not a matter between application and client; HTTP/2 forbids it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            with self._outlet.aborted:
                await super().__call__(scope, receive, send)
        finally:
            self._subscription.close("client")
