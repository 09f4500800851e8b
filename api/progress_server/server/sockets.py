"""The sockets that a server listens on, the options that connections inherit from them, and the TLS certificate."""

import errno
import socket
import ssl
import sys

from progress_broker.errors import SetupError
from progress_broker.settings import LOOPBACK, Settings

BACKLOG = 4096
SEND_BUFFER_BYTES = 131_072
"""The approximate size of the kernel's send buffer per client. By default it grows to megabytes for a slow client."""

_TCP_OPTIONS = {  # inherited by accepted connections; they detect peers that vanished without closing the connection
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket. Raise `SetupError` if the address can't be used, or is not loopback and the server has
    no authentication."""
    if settings.auth == "none" and settings.host not in LOOPBACK and not settings.insecure:
        raise SetupError(
            f"the server has no authentication (PROGRESS_AUTH=none), and other machines can reach {settings.host}:"
            " listen on 127.0.0.1, or pass --insecure if a proxy in front of the server authenticates callers"
        )
    return _bind(settings.host, settings.port)


def listen_for_each(settings: Settings, processes: int) -> list[socket.socket]:
    """Return a listening socket for each process, all on one address; raise `SetupError` as `listen` does.

    The kernel distributes connections evenly over these sockets, but unevenly over processes that accept from one
    socket (`bench/spread.py`). With SO_REUSEPORT, binding succeeds even if another program of the same user listens
    there. So an ordinary socket binds the address first, and keeps it until all sockets exist.
    """
    if sys.platform != "linux":
        raise SetupError(
            "--processes works only on Linux, where the kernel distributes connections over processes: leave it out"
        )
    with listen(settings) as proof:
        port = proof.getsockname()[1]
        proof.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return [_bind(settings.host, port, reuse_port=True) for _ in range(processes)]


def _bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()  # `::` is every address, also of IPv4
    try:
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port, dualstack_ipv6=both
        )
    except OSError as error:
        why = error.strerror or str(error)
        advice = {
            errno.EADDRINUSE: "stop the program that listens there, or choose another port",
            errno.EACCES: "choose a port of 1024 or above",
        }.get(error.errno or 0, "choose a --host that is an address of this machine")
        raise SetupError(f"can't listen on {host}:{port} ({why.partition(' (')[0]}): {advice}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listener


def leave_to_others(listener: socket.socket) -> None:
    """Stop listening on this socket, so that the kernel gives new connections to the other processes."""
    # Only if the socket listens: otherwise Linux remembers the shutdown, and later connections would be closed.
    if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.shutdown(socket.SHUT_RDWR)


def check_certificate(settings: Settings) -> None:
    """Raise `SetupError` if TLS is configured and its certificate or key can't be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        # Any password is passed, even a wrong one: without one, OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, lambda: "-")
    except OSError as error:  # `SSLError` is a subclass
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else f"OpenSSL says: {error}"
        raise SetupError(
            f"can't use TLS with the certificate {settings.tls_cert} and the key {settings.tls_key} ({reason}):"
            " both must be PEM files, and the key must have no password"
        ) from None
