"""The ASGI outlet: it sends a subscription's frames as an `EventSourceResponse`, on any ASGI server."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from progress_broker.stream.outlet import TEXT, Encoding, OutletOwner
from progress_server.protocols.event_source import QuietEventSourceResponse
from progress_server.sse.encodings import GZIP_HEADER, GzipChunk, gzip, trailer


class AsgiOutlet:
    """An outlet that buffers what the ASGI server has not yet accepted: up to `limit` bytes, plus at most one write."""

    kind = "asgi"
    encoding: Encoding = TEXT

    def __init__(self, subscription: OutletOwner, limit: int, client: str) -> None:
        self.client = client
        """The client's address, or its network for IPv6."""
        self.aborted = anyio.CancelScope()
        self._subscription = subscription
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0
        self._closed = False
        self._news = asyncio.Event()

    def write(self, data: Any) -> None:
        """Buffer data to send."""
        self._hold(data)

    def _hold(self, data: bytes) -> None:
        self._chunks.append(data)
        self._size += len(data)
        self._news.set()
        if self._size >= self._limit:
            self._subscription.pause_writing()

    def close(self) -> None:
        """End the response after the buffered data."""
        self._closed = True
        self._news.set()

    def abort(self) -> None:
        """End the response now."""
        self.aborted.cancel()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the buffered data, joined, whenever there is some. When it has been sent, the subscription resumes."""
        self._subscription.attach(self)
        while True:
            await self._news.wait()
            self._news.clear()
            if self._chunks:
                data = b"".join(self._chunks)
                self._chunks.clear()
                self._size = 0
                yield data
                self._subscription.resume_writing()
            if self._closed and not self._chunks:
                return


class GzipAsgiOutlet(AsgiOutlet):
    """The outlet of a client that accepts gzip."""

    def __init__(self, subscription: OutletOwner, limit: int, client: str, over: int) -> None:
        super().__init__(subscription, limit, client)
        self.encoding = gzip(over)
        self._crc = self._length = 0
        self._chunks.append(GZIP_HEADER)

    def write(self, packed: GzipChunk) -> None:
        """Buffer compressed frames, which all clients share."""
        self._crc = zlib.crc32(packed.text, self._crc)
        self._length += len(packed.text)
        self._hold(packed.data)

    def close(self) -> None:
        """End the gzip stream, and then the response, after the buffered data."""
        self._chunks.append(trailer(self._crc, self._length))
        super().close()


class AsgiStream(QuietEventSourceResponse):
    """An ASGI response that carries a subscription. When it ends, for any reason, it closes the subscription."""

    def __init__(self, subscription: OutletOwner, outlet: AsgiOutlet, headers: list[tuple[bytes, bytes]]) -> None:
        self._subscription = subscription
        self._outlet = outlet
        # Pings come from the timer wheel, which is one task for all streams.
        super().__init__(outlet.chunks(), ping=0, sep="\n")
        self.raw_headers = headers  # without its `Connection` header: the server sets it, and HTTP/2 forbids it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            with self._outlet.aborted:
                await super().__call__(scope, receive, send)
        finally:
            self._subscription.close("client")
