"""Offers to upgrade to another protocol on the same connection (RFC 9110, 7.8): which are accepted, and how the others
are ignored."""

import re
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = list[tuple[bytes, bytes]]

_HANDSHAKE = ((b"connection", b"Upgrade"), (b"upgrade", b"websocket"))
"""The header by which uvicorn recognizes a WebSocket handshake."""

_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class UpgradeProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, changed so that a request whose upgrade is ignored is received completely.

    After a head with an offer, the parser treats the following data as another protocol. So the head is parsed again,
    without the offer, and only then does the request begin.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._without_offer: bytes | None = None

    def data_received(self, data: bytes) -> None:
        """Parse received data."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stop:
                if self._without_offer is None:
                    self.handle_websocket_upgrade()
                    return
                self.parser = _parser(self)  # the old one skips all further data after `Connection: close`
                data, self._without_offer = self._without_offer + data[stop.args[0] :], None
            except httptools.HttpParserError as error:
                self.logger.debug("Invalid HTTP request: %s", error)  # a warning would let any client fill the log
                self.send_400_response("Invalid HTTP request received.")
                return

    def on_headers_complete(self) -> None:
        """Begin a request. If its upgrade is ignored, wait until its head is parsed again without the offer.

        A handshake that follows an unanswered request is ignored too: both would write into one connection.
        """
        if self.parser.should_upgrade():
            head = self.parser.get_method(), self.parser.get_http_version(), self.url, self.headers
            if head[0] == b"CONNECT":
                raise httptools.HttpParserInvalidMethodError("the method CONNECT is only for proxies")
            idle = self.cycle is None or self.cycle.response_complete
            if not (idle and self.ws_protocol_class and _is_handshake(head[0], head[1], self.headers)):
                self._without_offer = _without_offer(*head)
                return
            others = [field for field in self.headers if field[0] not in (b"connection", b"upgrade")]
            self.headers[:] = [*others, *_HANDSHAKE]
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that a request is complete, unless its head has to be parsed again first."""
        if self._without_offer is None:
            super().on_message_complete()


def _is_handshake(method: bytes, version: str, headers: Headers) -> bool:
    """Return whether a request that offers an upgrade is a WebSocket's handshake, which gets a WebSocket's answer.

    A request with a body is not: what opens the new protocol would be taken for the body, or the reverse. Nor is one
    without a valid key and version (RFC 6455, 4.2.1): the path of a WebSocket answers it by 426.
    """
    if method != b"GET" or version != "1.1" or any(name in _FRAMING for name, _ in headers):
        return False
    offered = b",".join(value for name, value in headers if name == b"upgrade").lower().split(b",")
    if b"websocket" not in map(bytes.strip, offered):
        return False
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    return len(keys) == 1 and _KEY.fullmatch(keys[0]) is not None and versions == [b"13"]


def _without_offer(method: bytes, version: str, url: bytes, headers: Headers) -> bytes:
    """Return a request's head as it was sent, but without the upgrade that it offered."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    lines += [b"%b: %b" % field for field in headers if field[0] != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def _parser(protocol: object) -> httptools.HttpRequestParser:
    """Return a new parser, created as uvicorn creates its own."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
