"""Adoption: an HTTP connection is taken over from uvicorn once the head of its response is written.

uvicorn keeps a protocol, a request, its scope, a task and a queue for each open response. A stream that lives for an
hour needs none of them, only its socket. `AdoptableProtocol` offers it to the application as an ASGI scope extension:

    offer = scope.get("extensions", {}).get(ADOPTION)   # on any other server: None
    await send({"type": "http.response.start", …})      # so that middleware and the access log see it
    connection = await offer.adopt(limit)               # None: go on with `send`
    connection.transport.set_protocol(…)

Run it with `uvicorn --http progress_server.protocols.adoption:AdoptableProtocol …`; `progress-broker serve` does.
"""

import asyncio
from typing import Any, NamedTuple
from weakref import ref

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from progress_server.protocols.http import BoundedProtocol

ADOPTION = "progress_broker.adoption"
"""The key among the scope's `extensions`."""


class Connection(NamedTuple):
    """What is handed over."""

    transport: asyncio.Transport
    connections: set[Any]
    """uvicorn's connections: it counts them, and ends each by its `shutdown()`. While it lasts, be one of them."""


class Offer:
    """A connection that may be had. A request's scope holds it, so it holds nothing that holds the scope."""

    __slots__ = ("_cycle", "_protocol")

    def __init__(self, protocol: "AdoptableProtocol", cycle: RequestResponseCycle) -> None:
        self._protocol, self._cycle = ref(protocol), ref(cycle)

    def without_chunks(self) -> None:
        """Have the head announce none: the body will end with the connection, as HTTP/1.0 knows no other way."""
        cycle = self._cycle()
        if cycle is not None:
            cycle.chunked_encoding = False

    async def adopt(self, limit: int) -> Connection | None:
        """Wait until the connection holds at most `limit` bytes, and take it. What it is sent is framed by its taker.

        Return None if the response has to go on as it began: the client has gone, or something between uvicorn and
        the application still holds the head.
        """
        protocol, cycle = self._protocol(), self._cycle()
        if protocol is None or cycle is None:
            return None
        if not cycle.response_started:
            cycle.chunked_encoding = None
            return None
        transport = cycle.transport
        if not (cycle.disconnected or transport.is_closing()):
            # A transport says that it is full once, and would have said so to the protocol before.
            transport.set_write_buffer_limits(high=limit)
            while cycle.flow.write_paused:
                await cycle.flow.drain()
        if transport.is_closing():
            cycle.disconnected = True  # as uvicorn is about to learn
        return None if cycle.disconnected or cycle.response_complete else protocol.let_go(cycle)


class OpenCycle(RequestResponseCycle):
    """A request and its response, which notices that the connection was closed under it.

    A client may leave, or send what is no HTTP, while its request is being answered. uvicorn is told so a turn of the
    loop later; and uvloop raises an error at who writes meanwhile, where asyncio's own transports say nothing.
    """

    async def send(self, message: Any) -> None:
        """Send a message, if there is somebody to read it."""
        if self.transport.is_closing():
            self.disconnected = True
        await super().send(message)


class AdoptableProtocol(BoundedProtocol):
    """uvicorn's HTTP/1.1 protocol with bounds, whose connections can be adopted."""

    def on_headers_complete(self) -> None:
        """Begin a request; offer the connection if a response can do with the socket alone."""
        before = self.cycle
        super().on_headers_complete()
        cycle, scope = self.cycle, self.scope
        if cycle is before:
            return
        cycle.__class__ = OpenCycle
        if scope["method"] == "GET":
            extensions: dict[str, Any] = scope.setdefault("extensions", {})
            extensions[ADOPTION] = Offer(self, cycle)

    def let_go(self, cycle: RequestResponseCycle) -> Connection:
        """Forget the connection: as when a WebSocket is upgraded, for uvicorn the response is complete."""
        cycle.response_complete = True
        cycle.message_event.set()
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.connections.discard(self)
        # Its head said that nothing is answered after this; and these hold us, as we hold them.
        self.pipeline.clear()
        self.cycle = None  # type: ignore[assignment]
        self.parser = None  # type: ignore[assignment]
        return Connection(self.transport, self.connections)
