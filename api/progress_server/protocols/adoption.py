"""Adoption: an HTTP connection is taken over from uvicorn once the head of its response is written.

uvicorn keeps a protocol, a request, its scope, a task and a queue for each open response. A stream that lives for an
hour needs none of them, only its socket. `AdoptableProtocol` offers that to the application as an extension of the ASGI
scope:

    offer = scope.get("extensions", {}).get(ADOPTION)   # None on any other server
    await send({"type": "http.response.start", …})      # so that middleware and the access log see it
    connection = await offer.adopt(limit)               # None: continue with `send`
    connection.transport.set_protocol(…)
    connection.transport.write(connection.head + …)

`progress-broker serve` runs it; `api/progress_server/protocols/for_uvicorn.py` tells how uvicorn does.
"""

from typing import Any, cast
from weakref import ref

from progress_server.protocols.extensions import ADOPTION, Connection
from progress_server.protocols.http import BoundedCycle, BoundedHttpProtocol


class ConnectionHandover:
    """An offer to take over a connection. It has only weak references, because the request's scope refers to it."""

    __slots__ = ("_cycle", "_protocol", "held")

    def __init__(self, protocol: "AdoptableProtocol", cycle: BoundedCycle) -> None:
        self._protocol, self._cycle = ref(protocol), ref(cycle)
        self.held = False

    def without_chunks(self) -> None:
        """Write a head without chunked encoding: the body ends with the connection, as HTTP/1.0 requires."""
        cycle = self._cycle()
        if cycle is not None:
            cycle.chunked_encoding = False

    async def adopt(self, limit: int) -> Connection | None:
        """Wait until the connection buffers at most `limit` bytes, and take it over. The caller then encodes what it
        sends.

        Return None if the response has to continue with `send`: the client has disconnected, or middleware between
        uvicorn and the application still holds the head.
        """
        protocol, cycle = self._protocol(), self._cycle()
        if protocol is None or cycle is None:
            return None
        if not cycle.response_started:
            cycle.chunked_encoding = None
            self.held = True
            return None
        transport = cycle.transport
        if not (cycle.disconnected or transport.is_closing()):
            # A transport reports once that it is full. It may have reported to the protocol before.
            transport.set_write_buffer_limits(high=limit)
            while cycle.flow.write_paused:
                await cycle.flow.drain()
        if transport.is_closing():
            cycle.disconnected = True  # uvicorn itself sets this later
        return None if cycle.disconnected or cycle.response_complete else protocol.detach(cycle)


class AdoptableProtocol(BoundedHttpProtocol):
    """uvicorn's HTTP/1.1 protocol with limits, which offers the application to take over a connection."""

    def on_headers_complete(self) -> None:
        """Begin a request. If it is a GET, offer the connection: its response may be a stream, which needs only the
        socket."""
        before = self.cycle
        super().on_headers_complete()
        cycle, scope = self.cycle, self.scope
        if cycle is before:
            return
        if scope["method"] == "GET":
            extensions: dict[str, Any] = scope.setdefault("extensions", {})
            extensions[ADOPTION] = ConnectionHandover(self, cast(BoundedCycle, cycle))

    def detach(self, cycle: BoundedCycle) -> Connection:
        """Hand the connection over to the application. For uvicorn the response is complete, as after an upgrade to a
        WebSocket."""
        cycle.response_complete = True
        cycle.message_event.set()
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.connections.discard(self)
        # The head said `Connection: close`, so nothing else is answered. These refer to us: end the reference cycles.
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]
        self.parser = None  # type: ignore[assignment]
        return Connection(self.transport, self.connections, cycle.head)
