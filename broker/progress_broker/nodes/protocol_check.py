"""Checks which protocol the server at Redis' address uses: TLS or plain TCP, and whether it is a Redis at all.

The client library does not find the cause. A plain Redis reads a TLS handshake as the start of a command and waits for
the rest, so the client runs into its timeout. A TLS port closes a plain connection. So both are tried here directly.
Certificates are not checked, because nothing secret is sent.
"""

import socket
import ssl
from contextlib import suppress

from progress_broker.errors import StorageUnavailable, StorageUnsuitable
from progress_broker.nodes.pool_settings import address_of
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.settings import Settings

PATIENCE_S = 1.0

_NO_TLS = "{} does not use TLS: write {}:// instead of {}:// in PROGRESS_REDIS_URL, or enable TLS at that port"
_TLS = "{} uses TLS: write {}:// instead of {}:// in PROGRESS_REDIS_URL"
_HTTP = "{} is a web server, not a Redis: set PROGRESS_REDIS_URL to the address of a Redis"


def tls_address(settings: Settings) -> RedisAddress | None:
    """Return the address of Redis if it is for TLS; raise `SetupError` if it is wrong."""
    address = None if settings.redis_url is None else address_of(settings)
    return address if address is not None and address.tls else None


def check_tls(address: RedisAddress | None) -> None:
    """Raise `StorageUnsuitable` if the server at a `tls_address` has no TLS. A connection would only time out."""
    if address is not None:
        wrong = mismatch(address)
        if wrong is not None:
            raise StorageUnsuitable(wrong)


def explained(settings: Settings, error: StorageUnavailable) -> StorageUnavailable:
    """Return an error that names the cause of a failed connection, if it can be found; else the same error."""
    if settings.redis_url is None or isinstance(error, StorageUnsuitable):
        return error
    wrong = mismatch(address_of(settings))
    return error if wrong is None else StorageUnsuitable(wrong)


def mismatch(address: RedisAddress) -> str | None:
    """Return what is wrong with an address; None if nothing is wrong or no server of it answers."""
    for seed in address.seeds:
        if not seed.path:
            # No server, or an unknown host name: then the client's own error says so.
            with suppress(OSError, ValueError):
                return _mismatch_of(seed, address)
    return None


def _mismatch_of(server: Endpoint, address: RedisAddress) -> str | None:
    host, port, wants_tls = server.host, server.port, address.tls
    if wants_tls and _speaks_tls(host, port):
        return None
    answer = _said_plainly(host, port)
    if answer.startswith((b"HTTP/", b"<")):
        return _HTTP.format(address.shown)
    if answer.startswith((b"+", b"-")):
        return _NO_TLS.format(address.shown, *_schemes(address)) if wants_tls else None
    return _TLS.format(address.shown, *_schemes(address)) if not wants_tls and _speaks_tls(host, port) else None


def _schemes(address: RedisAddress) -> tuple[str, str]:
    """Return the scheme to write, and the one that is written."""
    written = address.shown.partition("://")[0]
    name, plus, kind = written.partition("+")
    return f"{'redis' if name == 'rediss' else 'rediss'}{plus}{kind}", written


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), PATIENCE_S) as connection:
        try:
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # for example, if it requires a client certificate
        except OSError:  # it closes the connection, or does not answer in time
            return False
    return True


def _said_plainly(host: str, port: int) -> bytes:
    """Return the answer to a PING. Every Redis answers it, even if it requires a password."""
    with socket.create_connection((host, port), PATIENCE_S) as connection:
        connection.sendall(b"PING\r\n\r\n")
        try:
            return connection.recv(64)
        except OSError:
            return b""
