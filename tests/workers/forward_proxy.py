"""An HTTP proxy on the way out of a network, as HTTP_PROXY and HTTPS_PROXY name one."""

import socket
from base64 import b64encode
from contextlib import suppress
from threading import Thread
from typing import Self

USER, PASSWORD = "ann", "s3cret"
_ALLOWED = b64encode(f"{USER}:{PASSWORD}".encode())


class ForwardProxy:
    """Passes requests on to one server, whatever host they name, from callers that have its password."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"http://{USER}:{PASSWORD}@{self.address}"
        self.asked: list[str] = []
        """The method and the target of the first request of each connection."""
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for each in self._sockets:
            each.close()

    def cut(self) -> None:
        """Cut all connections, as a network does whose path changes."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _spawn(self, work: object, *args: object) -> None:
        thread = Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self._spawn(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        self._sockets.append(client)
        head = b""
        while b"\r\n\r\n" not in head:
            data = _receive(client)
            if not data:
                return
            head += data
        if b"proxy-authorization: basic " + _ALLOWED.lower() not in head.lower():
            client.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            client.shutdown(socket.SHUT_RDWR)
            return
        method, target = head.decode("latin-1").split(" ")[:2]
        self.asked.append(f"{method} {target}")
        with suppress(OSError):
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets.append(server)
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                server.sendall(head)  # servers take a target with a host, too
            self._spawn(_pass_on, server, client)
            _pass_on(client, server)


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    while data := _receive(source):
        with suppress(OSError):
            to.sendall(data)
    for each in (source, to):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except OSError:
        return b""
