"""Adopted outlets: each writes a stream's frames directly to the client's socket, which was taken over from uvicorn.

They replace uvicorn's protocol, request and task, so an open stream needs little memory.
"""

import asyncio
from collections.abc import Callable

from progress_broker.limits.slots import Holder, Slot
from progress_broker.stream.outlet import TEXT, Encoding, OutletOwner
from progress_server.protocols.extensions import Connection
from progress_server.sse.encodings import CHUNKED, LAST_CHUNK

MAX_UNASKED_BYTES = 65_536
"""Maximum bytes that a client may send after its request. They are ignored; more of them abort the connection."""


class FirstWrite:
    """Writes the held head together with the first data. After that, an outlet writes to the transport directly."""

    __slots__ = ("_outlet", "head")

    def __init__(self, outlet: "ChunkedOutlet", head: bytes) -> None:
        self._outlet, self.head = outlet, head

    def __call__(self, data: bytes) -> None:
        """Write both."""
        self._outlet.started().write(self.head + data)


class AdoptedOutlet(asyncio.Protocol):
    """The asyncio protocol of a socket that was taken over: a full transport buffer pauses the stream."""

    __slots__ = ("_connections", "_holder", "_lingering", "_subscription", "_transport", "_unasked")

    kind = "adopted"
    linger_s = 5.0
    """Time limit for sending the rest of a response that has ended, and for the client to close the connection."""

    def __init__(self, subscription: OutletOwner, connection: Connection) -> None:
        transport, connections, _ = connection
        self._subscription = subscription
        self._transport = transport
        self._connections = connections
        self._unasked = 0
        self._lingering: asyncio.TimerHandle | None = None
        self._holder: Holder | None = None
        transport.set_protocol(self)
        connections.add(self)

    def keep(self, slot: Slot | None) -> None:
        """Hold the stream's slot in the limits for as long as the connection lasts."""
        self._holder = None if slot is None else slot.transfer()

    @property
    def client(self) -> str:
        """The client's address, which the slot's holder has anyway: an idle stream keeps none of its own."""
        return "" if self._holder is None else self._holder.address

    # What the subscription calls

    def close(self) -> None:
        """End the response after what was written."""
        transport = self._transport
        if self not in self._connections:  # the connection is already lost, and nothing can be sent
            return
        if not transport.is_closing():
            transport.write(self.head() + self.last())
            transport.close()
        # A client that reads nothing would keep the connection open forever. Over TLS, so would a client that never
        # closes its side.
        self._lingering = asyncio.get_running_loop().call_later(self.linger_s, transport.abort)

    def head(self) -> bytes:
        """Return the response's head if it was not written yet."""
        raise NotImplementedError

    def last(self) -> bytes:
        """Return the bytes that end the response."""
        return LAST_CHUNK

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    # What the transport and the server call

    def pause_writing(self) -> None:
        """Pause the stream: the transport's buffer is full."""
        self._subscription.pause_writing()

    def resume_writing(self) -> None:
        """Resume the stream: the transport's buffer has room again."""
        self._subscription.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Ignore data: the response has `Connection: close`, so no other request follows. Too much data aborts it."""
        self._unasked += len(data)
        if self._unasked > MAX_UNASKED_BYTES:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the subscription with its client."""
        self._connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()
        if self._holder is not None:
            self._holder.release()
        self._subscription.close()

    def shutdown(self) -> None:
        """Ask the client to reconnect, because the server shuts down."""
        self._subscription.close("draining", reconnect=True)


class ChunkedOutlet(AdoptedOutlet):
    """The outlet of most clients. The hub calls the transport's `write` directly, without code of ours in between."""

    __slots__ = ("write",)

    encoding: Encoding = CHUNKED

    def __init__(self, subscription: OutletOwner, connection: Connection) -> None:
        super().__init__(subscription, connection)
        self.write: Callable[[bytes], object] = FirstWrite(self, connection.head)

    def started(self) -> asyncio.Transport:
        """Write to the transport directly from now on; return it."""
        self.write = self._transport.write
        return self._transport

    def head(self) -> bytes:
        """Return the response's head if it was not written yet."""
        return self.write.head if isinstance(self.write, FirstWrite) else b""


class Http10Outlet(ChunkedOutlet):
    """The outlet of an HTTP/1.0 client, for which the end of the connection ends the body."""

    __slots__ = ()

    encoding = TEXT

    def last(self) -> bytes:
        """Return nothing: closing the connection ends the response."""
        return b""
