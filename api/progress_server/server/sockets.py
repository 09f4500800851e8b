"""The sockets that a server listens on, what connections inherit from them, and the certificate for TLS."""

import errno
import socket
import ssl
import sys

from progress_broker.errors import SetupError
from progress_broker.settings import LOOPBACK, Settings

BACKLOG = 4096
SEND_BUFFER_BYTES = 131_072
"""What the kernel holds for a client, about: left to itself it would be megabytes for each that does not keep up."""

_TCP_OPTIONS = {  # inherited by accepted connections; they find peers that vanished without a word
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 30_000,
}


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket; raise `SetupError` when the address can't be had, or must not be without a key."""
    if settings.auth == "none" and settings.host not in LOOPBACK and not settings.insecure:
        raise SetupError(
            f"without authentication only this machine may be served, and {settings.host} is open to others:"
            " listen on 127.0.0.1, or say --insecure where something in front keeps strangers out"
        )
    return _bind(settings.host, settings.port)


def listen_for_each(settings: Settings, processes: int) -> list[socket.socket]:
    """Return a listening socket for each process, all on one address; raise `SetupError` as `listen` does.

    The kernel spreads connections over them evenly; over processes that accept from one socket they do not spread at
    all well (`bench/spread.py`). But with SO_REUSEPORT a taken address looks free to programs of the same user, so an
    ordinary socket has to get it first, and holds it until all are there.
    """
    if sys.platform != "linux":
        raise SetupError("many processes need Linux, whose kernel spreads connections over them: leave out --processes")
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
            errno.EADDRINUSE: "stop what listens there, or choose another --port",
            errno.EACCES: "choose a --port of 1024 or above",
        }.get(error.errno or 0, "choose a --host that is an address of this machine")
        raise SetupError(f"can't listen on {host}:{port} ({why.partition(' (')[0]}): {advice}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    for name, value in _TCP_OPTIONS.items():
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return listener


def leave_to_others(listener: socket.socket) -> None:
    """Have the kernel spread new connections over the other processes, until one listens on this socket again."""
    # Only if it listens: of another one Linux would keep that it was shut down, and what it accepts later be born dead.
    if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.shutdown(socket.SHUT_RDWR)


def check_certificate(settings: Settings) -> None:
    """Raise `SetupError` if there is to be TLS, and its certificate or its key can't be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return
    try:
        # With a password, if a wrong one: OpenSSL would ask the terminal for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, lambda: "-")
    except OSError as error:  # which an `SSLError` is too
        reason = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else f"OpenSSL says: {error}"
        raise SetupError(
            f"TLS can't be had with the certificate {settings.tls_cert} and the key {settings.tls_key} ({reason}):"
            " they are PEM files, the key's without a password"
        ) from None
