"""Limits on a connection: the size of a request and the time to receive it, which uvicorn does not limit."""

import asyncio
from typing import Any, ClassVar, NamedTuple, Self
from urllib.parse import quote

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from progress_broker.settings import Settings
from progress_server.http.problems import problem
from progress_server.protocols.extensions import REJECTION, REJECTION_DETAILS
from progress_server.protocols.upgrades import UpgradeProtocol

MAX_PIPELINED = 16
"""Maximum pipelined requests that wait for an earlier response. Browsers send none, and each needs kilobytes."""

MAX_IGNORED_BYTES = 16 * 1024 * 1024
"""Maximum bytes of a body that are ignored after its request was answered early, for example rejected. A client that
sends more is cut. It is several times the accepted size: a proxy that is cut while it sends never reads the
response."""

PIECE_BYTES = 1_024
"""Bytes that each received piece counts for in addition, because each costs time: pieces may be only one byte long."""

LINGER_S = 2.0
"""How long the rest of such a body is ignored before the connection is cut."""

_SHOWN_BYTES = 200
"""How much of a path the log shows where the request could not be read."""

_FIELD_BYTES = 4  # colon, space, CR, LF


class Bounds(NamedTuple):
    """The limits of one request, and the maximum number of connections."""

    url_bytes: int = 32_768
    head_bytes: int = 65_536
    head_s: float = 15.0
    connections: int = 60_000

    @classmethod
    def of(cls, settings: Settings, files: int) -> Self:
        """Return the limits from the settings, for a process that may open this number of files."""
        connections = min(settings.max_connections, max(1, files * 9 // 10))
        return cls(settings.max_url_bytes, settings.max_head_bytes, settings.request_timeout_s, connections)


class _TooMuch(Exception):
    """Raised in the parser's callbacks when a limit is exceeded. uvicorn then calls `send_400_response`, as for any
    input that can't be parsed."""


class HeldHead:
    """Stands for the transport while uvicorn writes a response's head, and then the first part of its body.

    Both leave in one write. With two, each response would cost one more system call, and wake its client twice: a tenth
    of what a rejected stream costs (`bench/storm.py`).
    """

    __slots__ = ("_holds", "_transport", "data")

    def __init__(self, transport: asyncio.Transport, data: bytes, *, holds: bool) -> None:
        self._transport, self.data, self._holds = transport, data, holds

    def write(self, data: bytes) -> None:
        """Keep the head; write the first part of the body together with it."""
        self.data += data
        if not self._holds:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        data, self.data = self.data, b""
        if data:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Return whether the connection is closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what is held, and close the connection."""
        self.flush()
        self._transport.close()


class BoundedCycle(RequestResponseCycle):
    """A request and its response, which checks before each message whether the connection is closed.

    A client may leave, or send invalid HTTP, while its request is being answered. uvicorn is told so one turn of the
    event loop later. A write in between raises an error on uvloop, and is ignored on asyncio's own loop.
    """

    last = False
    """Whether the connection ends with this response: its client was never told to send the body (`Expect`), so nobody
    can tell whether what comes next is the body or another request (RFC 9110, 10.1.1)."""

    head = b""
    """The head of the response while it is not written: it leaves with the first part of the body."""

    async def send(self, message: Any) -> None:
        """Send a message; drop it if the connection is closed."""
        transport = self.transport
        if transport.is_closing():
            self.disconnected = True
        untold = self.waiting_for_100_continue and self.more_body
        if untold:
            self.last, self.keep_alive = True, False
        if self.response_started and not self.head:
            await super().send(message)
        else:
            held: Any = HeldHead(transport, self.head, holds=not self.response_started)
            self.transport = held
            try:
                await super().send(message)
            finally:
                self.transport = transport
                if self.response_complete:  # the body may be empty
                    held.flush()
                self.head = held.data
        if untold:
            self.keep_alive = True  # the protocol ends the connection: uvicorn's close could lose the response


class BoundedHttpProtocol(UpgradeProtocol):
    """uvicorn's HTTP/1.1 protocol, with limits. A request that exceeds one is answered with an error, then cut."""

    bounds: ClassVar[Bounds] = Bounds()
    app_rejects: ClassVar[bool] = True
    """Whether the app is ours, and answers requests that can't be read. Another app would take them for requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._in_head = self._in_body = self._ended = False
        self._fault: str | None = None
        self._head_bytes = self._ignored_bytes = 0
        self._pieces: list[bytes] = []  # of a body: uvicorn would copy the whole buffered body for each piece

    @classmethod
    def within(cls, bounds: Bounds) -> type[Self]:
        """Return the protocol with these bounds."""
        return type(cls.__name__, (cls,), {"bounds": bounds})

    @classmethod
    def for_any_app(cls) -> type[Self]:
        """Return the protocol for apps that need not be ours."""
        return type(cls.__name__, (cls,), {"app_rejects": False})

    # Connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection. Cut it if there are too many: an EventSource or a proxy then retries."""
        if len(self.connections) >= self.bounds.connections:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        self._await_more()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a connection that was closed."""
        self._await_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received data, and reject the request if it exceeds a limit."""
        if self._ended:
            self._ignore(data)
            return
        began_before = self._in_head
        super().data_received(data)
        self._pass_on()
        if self._ended:
            return
        if self._in_head and began_before:  # all of this data is of the head; of earlier data only a part may be
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes:
                self._reject("head-too-large")
        elif self._deadline is None and (self._in_head or self._said_nothing):
            self._await_more()

    @property
    def _said_nothing(self) -> bool:
        """Whether the data belonged to no request, such as empty lines. uvicorn has stopped its timer at this."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and not self._in_body and self.timeout_keep_alive_task is None

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin to count the bytes of a request's head."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Add a part of the URL, up to the limit."""
        super().on_url(url)
        if len(self.url) > self.bounds.url_bytes:
            self._fault = "uri-too-long"
            raise _TooMuch

    def on_headers_complete(self) -> None:
        """Begin a request, unless its head is too large or too many requests wait before it."""
        self._in_head = False
        self._await_no_more()
        size = len(self.url) + _FIELD_BYTES * len(self.headers)
        for name, value in self.headers:
            size += len(name) + len(value)
        if size > self.bounds.head_bytes:
            self._fault = "head-too-large"
            raise _TooMuch
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fault = "rate-limited"
            raise _TooMuch
        self._in_body, self._ignored_bytes = True, 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.__class__ = BoundedCycle

    def on_body(self, body: bytes) -> None:
        """Add a part of the body; after an early response, ignore it up to the limit."""
        if self.cycle is not None and self.cycle.response_complete:
            self._ignore(body)
            if self.transport.is_closing():
                raise _TooMuch  # the data that has already arrived may contain thousands of further pieces
        else:
            self._pieces.append(body)

    def _pass_on(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            super().on_body(b"".join(pieces))

    def on_message_complete(self) -> None:
        """Note that a request is complete."""
        self._pass_on()
        self._in_body = False
        if self._deadline is not None:
            self._await_no_more()
        super().on_message_complete()

    # What the request calls

    def on_response_complete(self) -> None:
        """Note that a response is complete; the rest of the request's body must arrive within a time limit."""
        super().on_response_complete()
        if isinstance(self.cycle, BoundedCycle) and self.cycle.last:
            self._unset_keepalive_if_required()
            self._ended = True
            self._linger()
        elif self._in_body and not self.transport.is_closing():
            self._await_more()

    # Rejection

    def send_400_response(self, msg: str) -> None:
        """Reject input that can't be parsed or exceeds a limit. If an earlier response is not complete, only close the
        connection: the client would take the error for that response."""
        self._ended = True
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self._fault is not None or cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True  # its response must not follow ours
            cycle.message_event.set()
        self._reject(self._fault or "bad-request")

    def _reject(self, code: str) -> None:
        """Have the app reject a request, as it does any other: with the same headers, in the log, and counted."""
        self._ended = True
        self._await_no_more()
        app = self.app if self.app_rejects else problem(code, REJECTION_DETAILS[code])
        task = self.loop.create_task(self._answer(app, self._scope_of_rejection(code)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _scope_of_rejection(self, code: str) -> dict[str, Any]:
        """Return a scope of what is known of a request. Its headers and its query may have been cut anywhere."""
        path = bytes(self.url or b"").partition(b"?")[0][:_SHOWN_BYTES].decode("latin-1")
        told: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
        }
        told |= {"server": self.server, "client": self.client, "scheme": self.scheme, "root_path": self.root_path}
        told |= {"method": "", "path": path, "raw_path": quote(path, "/%").encode(), "query_string": b""}
        return told | {"headers": [], "state": self.app_state.copy(), "extensions": {REJECTION: code}}

    async def _answer(self, app: Any, scope: dict[str, Any]) -> None:
        parts: list[bytes] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*self.server_state.default_headers, *message["headers"], (b"connection", b"close")]
                parts.append(STATUS_LINE[message["status"]])
                parts.extend(b"%b: %b\r\n" % header for header in headers)
                parts.append(b"\r\n")
            else:
                parts.append(message.get("body", b""))

        try:
            await app(scope, _nothing, send)
        finally:
            if not self.transport.is_closing():
                self.transport.write(b"".join(parts))
                self._linger()

    def _linger(self) -> None:
        """Close the sending side, and ignore received data for a while. If the connection were closed at once, a client
        that still sends would get a reset and lose the response."""
        self._await_no_more()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._deadline = self.loop.call_later(LINGER_S, self.transport.abort)
        else:
            self.transport.close()

    def _ignore(self, data: bytes) -> None:
        self._ignored_bytes += PIECE_BYTES + len(data)
        if self._ignored_bytes > MAX_IGNORED_BYTES:
            self.transport.abort()

    def _await_more(self) -> None:
        self._await_no_more()
        self._deadline = self.loop.call_later(self.bounds.head_s, self._late)

    def _await_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            self._reject("request-timeout")
        else:  # the client sent nothing, or still sends a body whose request was already answered
            self.transport.close()


async def _nothing() -> Any:
    return {"type": "http.disconnect"}
