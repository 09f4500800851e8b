"""Limits on a connection: the size of a request and the time to receive it, which uvicorn does not limit."""

import asyncio
from typing import Any, ClassVar, NamedTuple, Self

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from progress_broker.settings import Settings
from progress_server.http.problems import problem
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


class BoundedHttpProtocol(UpgradeProtocol):
    """uvicorn's HTTP/1.1 protocol, with limits. A request that exceeds one is answered with an error, then cut."""

    bounds: ClassVar[Bounds] = Bounds()

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
        fields = sum(len(name) + len(value) + _FIELD_BYTES for name, value in self.headers)
        if len(self.url) + fields > self.bounds.head_bytes:
            self._fault = "head-too-large"
            raise _TooMuch
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fault = "rate-limited"
            raise _TooMuch
        self._in_body, self._ignored_bytes = True, 0
        super().on_headers_complete()

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
        if self._in_body and not self.transport.is_closing():
            self._await_more()

    # Rejection

    def send_400_response(self, msg: str) -> None:
        """Reject input that can't be parsed or exceeds a limit. If an earlier response is not complete, only close the
        connection: the client would take the error for that response."""
        self._ended = True
        if self.transport.is_closing():
            return
        if self._fault is None:
            super().send_400_response(msg)
        elif self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
        else:
            self._reject(self._fault)

    def _reject(self, code: str) -> None:
        answer = problem(code, _DETAILS[code])
        lines = [STATUS_LINE[answer.status_code]]
        lines += [b"%b: %b\r\n" % header for header in answer.raw_headers]
        self._ended = True
        self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", bytes(answer.body)]))
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


_DETAILS = {
    "request-timeout": "the client did not send the request's headers in time (PROGRESS_REQUEST_TIMEOUT_S)",
    "uri-too-long": "the request's URL exceeds the limit (PROGRESS_MAX_URL_BYTES): ask for less at a time",
    "rate-limited": "the client sent too many requests on one connection without waiting for the responses",
    "head-too-large": "the request's URL and headers exceed the limit (PROGRESS_MAX_HEAD_BYTES);"
    " an oversized cookie is the usual cause",
}
