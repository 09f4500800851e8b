"""Adoption: an HTTP/1.1 connection is taken over from uvicorn once the head of its response is written.

uvicorn keeps a protocol, a request, its scope, a task and a queue for each open response. A stream that lives for an
hour needs none of them, only its socket. `AdoptableProtocol` offers it to the application as an ASGI scope extension:

    adopt = scope.get("extensions", {}).get(ADOPTION)   # on any other server: None
    await send({"type": "http.response.start", …})      # so that middleware and the access log see it
    connection = adopt()                                # None if the client has gone
    connection.transport.set_protocol(…)

Run it with `uvicorn --http api.adoption:AdoptableProtocol …`; `progress-broker serve` does.
"""

import asyncio
from functools import partial
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

ADOPTION = "progress_broker.adoption"
"""The key among the scope's `extensions`."""


class Connection(NamedTuple):
    """What is handed over."""

    transport: asyncio.Transport
    connections: set[Any]
    """uvicorn's connections: it counts them, and ends each by its `shutdown()`. While it lasts, be one of them."""


class AdoptableProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, whose connections can be adopted."""

    def on_headers_complete(self) -> None:
        """Begin a request; offer the connection if a response can do with the socket alone."""
        before = self.cycle
        super().on_headers_complete()
        cycle, scope = self.cycle, self.scope
        if cycle is not before and scope["method"] == "GET" and scope["http_version"] == "1.1":
            extensions: dict[str, Any] = scope.setdefault("extensions", {})
            extensions[ADOPTION] = partial(self._adopt, cycle)

    def _adopt(self, cycle: RequestResponseCycle) -> Connection | None:
        """Let go of the connection; return None if it has gone."""
        if cycle.disconnected or self.transport.is_closing():
            return None
        # As when a WebSocket is upgraded: for uvicorn the response is complete, and the connection another's.
        cycle.response_complete = True
        cycle.message_event.set()
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.pipeline.clear()  # its head says that nothing is answered after this
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment] # it and we hold each other
        return Connection(self.transport, self.connections)
