"""A name server as small as an engine's own: one name, whose addresses can change."""

import socketserver
import struct
import threading
from typing import Any, Self

TTL_S = 600  # what engines say; believing it would mean missing a replica for ten minutes


class NameServer:
    """Answers for `name` with the addresses it has at that moment, on a UDP port of 127.0.0.1."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self.addresses = addresses
        wanted = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

        class Handler(socketserver.BaseRequestHandler):
            def handle(handler) -> None:  # `self` is the name server
                query, socket = handler.request
                socket.sendto(self._answer(query, wanted), handler.client_address)

        self._server = socketserver.UDPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def address(self) -> str:
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def _answer(self, query: bytes, wanted: bytes) -> bytes:
        question = query[12:]  # RFC 1035, 4.1: a header of 12 bytes, then the question
        known = question.startswith(wanted)
        is_a = question[len(wanted) : len(wanted) + 4] == b"\0\1\0\1"
        addresses = self.addresses if known and is_a else []
        header = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8183, 1, len(addresses), 0, 0)
        question = question[: question.index(b"\0") + 5]
        records = [
            struct.pack(">HHHIH", 0xC00C, 1, 1, TTL_S, 4) + bytes(int(part) for part in address.split("."))
            for address in addresses
        ]
        return header + question + b"".join(records)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
