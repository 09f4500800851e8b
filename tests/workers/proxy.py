"""A TCP proxy in front of Redis that can drop the replies to requests that it forwarded."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Passes bytes both ways; of the next `losing` publishes it passes the call on, and cuts instead of the answer.

    While `dropping` it takes every byte and passes none on, as a network that is partitioned does. It passes no answer
    on to connections that have sent the word `muting`. Calls of scripts are answered by the error `rejecting`, and not
    passed on. New connections lead to `target`.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self.losing = 0
        self.lost = 0
        self.dropping = False
        self.muting: bytes | None = None
        self.rejecting: bytes | None = None
        self.rejected = 0
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets:
            _cut(each)
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def cut(self) -> None:
        """Cut all connections."""
        for each in self._sockets[1:]:
            _cut(each)

    def _spawn(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:  # it is down for now
                client.close()
                continue
            self._sockets += (client, server)
            asked, muted = threading.Event(), threading.Event()
            self._spawn(self._pass_calls, client, server, asked, muted)
            self._spawn(self._pass_answers, client, server, asked, muted)

    def _pass_calls(
        self, client: socket.socket, server: socket.socket, asked: threading.Event, muted: threading.Event
    ) -> None:
        while data := _receive(client):
            if self.muting is not None and self.muting in data:
                muted.set()
            rejecting = self.rejecting
            if rejecting is not None and (calls := data.count(b"EVALSHA")):
                self.rejected += calls
                with suppress(OSError):
                    client.sendall(b"-%b\r\n" % rejecting * calls)
                continue
            if b"EVALSHA" in data and self.losing > 0:
                self.losing -= 1
                asked.set()
            if not self.dropping:
                with suppress(OSError):
                    server.sendall(data)
        _cut(server)

    def _pass_answers(
        self, client: socket.socket, server: socket.socket, asked: threading.Event, muted: threading.Event
    ) -> None:
        while data := _receive(server):
            if asked.is_set():
                self.lost += 1
                break
            if not (self.dropping or (self.muting is not None and muted.is_set())):
                with suppress(OSError):  # it may have disconnected meanwhile
                    client.sendall(data)
        _cut(client)
        _cut(server)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except OSError:
        return b""


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
