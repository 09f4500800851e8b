"""The adopted outlets: a subscription's frames straight into its socket. One object is all there is of a connection."""

import asyncio
import zlib
from typing import ClassVar

from progress_broker.limits.slots import Place
from progress_broker.stream.outlet import TEXT, Encoding, Writer
from progress_server.protocols.extensions import Connection
from progress_server.sse.encodings import CHUNKED, GZIP_HEADER, LAST_CHUNK, Packed, chunk, chunked_gzip, ending

MAX_UNASKED_BYTES = 65_536
"""What a client may send after its request, to which nobody will listen, before it is cut off."""


class AdoptedOutlet(asyncio.Protocol):
    """A client's socket. The transport's own buffer, which is bounded, tells the subscription when to stop."""

    __slots__ = ("_connections", "_lingering", "_place", "_subscription", "_transport", "_unasked")

    kind = "adopted"
    linger_s: ClassVar[float] = 5
    """How long a response that has ended may take to leave, and a client to close too."""

    def __init__(self, subscription: Writer, connection: Connection) -> None:
        transport, connections = connection
        self._subscription = subscription
        self._transport = transport
        self._connections = connections
        self._unasked = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._place: Place | None = None
        transport.set_protocol(self)
        connections.add(self)

    def keep(self, place: Place | None) -> None:
        """Keep the stream's place within the limits for as long as the connection lasts."""
        if place is not None:
            self._place = place
            place.kept = True

    # What the subscription calls

    def close(self) -> None:
        """End the response after what was written."""
        transport = self._transport
        if self not in self._connections:  # it is lost, which is why we close
            return
        if not transport.is_closing():
            transport.write(self.last())
            transport.close()
        # A client that takes nothing would keep it for ever. Over TLS, so would one that does not close in turn.
        self._lingering = asyncio.get_running_loop().call_later(self.linger_s, transport.abort)

    def last(self) -> bytes:
        """Return what the response ends with."""
        return LAST_CHUNK

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    # What the transport calls

    def pause_writing(self) -> None:
        """Stop: the transport holds enough."""
        self._subscription.filled()

    def resume_writing(self) -> None:
        """Go on."""
        self._subscription.drained()

    def data_received(self, data: bytes) -> None:
        """Ignore it: the response's head said that the connection closes after it. A flood ends it now."""
        self._unasked += len(data)
        if self._unasked > MAX_UNASKED_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the subscription with its client."""
        self._connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()
        if self._place is not None:
            self._place.give_back()
        self._subscription.close()

    # What the server calls

    def shutdown(self) -> None:
        """Send the client away: the server stops."""
        self._subscription.close("draining", reconnect=True)


class ChunkedOutlet(AdoptedOutlet):
    """That of most clients: nothing of ours stands between the hub and the transport."""

    __slots__ = ("write",)

    encoding: Encoding = CHUNKED

    def __init__(self, subscription: Writer, connection: Connection) -> None:
        super().__init__(subscription, connection)
        self.write = connection.transport.write


class UnframedOutlet(ChunkedOutlet):
    """That of an HTTP/1.0 client, for which a body ends with its connection."""

    __slots__ = ()

    encoding = TEXT

    def last(self) -> bytes:
        """Return nothing: the close says it."""
        return b""


class GzipOutlet(AdoptedOutlet):
    """That of a client that accepts gzip."""

    __slots__ = ("_crc", "_size", "encoding")

    def __init__(self, subscription: Writer, connection: Connection, over: int) -> None:
        super().__init__(subscription, connection)
        self._crc = self._size = 0
        self.encoding = chunked_gzip(over)

    def write(self, packed: Packed) -> None:
        """Write what was packed for all; before the first, the header."""
        data, text = packed
        if not self._size:
            data = chunk(GZIP_HEADER) + data
        self._crc = zlib.crc32(text, self._crc)
        self._size += len(text)
        self._transport.write(data)

    def last(self) -> bytes:
        """Return what ends the gzip stream and the response."""
        header = b"" if self._size else GZIP_HEADER
        return chunk(header + ending(self._crc, self._size)) + LAST_CHUNK
