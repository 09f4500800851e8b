"""The adopted outlet: a subscription's frames straight into its socket. All there is of a connection is this object."""

import asyncio

from api.adoption import Connection
from api.chunked import CHUNKED, LAST_CHUNK
from broker.subscription import Subscription

MAX_UNASKED_BYTES = 65_536
"""What a client may send after its request, to which nobody will listen, before it is cut off."""

LINGER_S = 5
"""How long a response that has ended may take to leave."""


class AdoptedOutlet(asyncio.Protocol):
    """A client's socket. The transport's own buffer, bounded by `limit` bytes, tells the subscription when to stop."""

    __slots__ = ("_connections", "_subscription", "_transport", "_unasked", "write")

    encoding = CHUNKED

    def __init__(self, subscription: Subscription, limit: int, connection: Connection) -> None:
        transport, connections = connection
        self._subscription = subscription
        self._transport = transport
        self._connections = connections
        self._unasked = 0
        self.write = transport.write  # nothing of ours stands between the hub and the transport
        transport.set_write_buffer_limits(high=limit)
        transport.set_protocol(self)
        connections.add(self)

    # What the subscription calls

    def close(self) -> None:
        """End the response after what was written."""
        transport = self._transport
        if transport.is_closing():
            return
        transport.write(LAST_CHUNK)
        transport.close()
        if transport.get_write_buffer_size():  # a client that takes nothing would keep it for ever
            asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

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
        self._subscription.close()

    # What the server calls

    def shutdown(self) -> None:
        """Send the client away: the server stops."""
        self._subscription.close("draining", reconnect=True)
