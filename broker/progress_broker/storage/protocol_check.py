"""Whether what listens at Redis' address speaks what the address says: TLS or plain, and Redis' protocol at all.

The client library can't tell. A plain Redis waits for the end of what it takes for a command, so a client that begins
with TLS waits for its whole timeout; a TLS port closes the connection of one that does not. Here both are tried, by
hand. Nothing secret is sent, so nobody's certificate is checked.
"""

import socket
import ssl
from urllib.parse import urlsplit

from progress_broker.errors import StorageUnavailable, StorageUnsuitable
from progress_broker.settings import Settings
from progress_broker.storage.server_kind import shown

PATIENCE_S = 1.0

_NO_TLS = (
    "{} answers without TLS: write redis:// instead of rediss:// in PROGRESS_REDIS_URL, or turn TLS on at that port"
)
_TLS = "{} speaks TLS: write rediss:// instead of redis:// in PROGRESS_REDIS_URL"
_HTTP = "{} is a web server, and no Redis: set PROGRESS_REDIS_URL to the address of a Redis"


def check_tls(settings: Settings) -> None:
    """Raise `StorageUnsuitable` if TLS is wanted where there is none, which would else take a timeout to find out."""
    if settings.redis_url is not None and urlsplit(settings.redis_url.get_secret_value()).scheme == "rediss":
        wrong = mismatch(settings.redis_url.get_secret_value())
        if wrong is not None:
            raise StorageUnsuitable(wrong)


def explained(settings: Settings, error: StorageUnavailable) -> StorageUnavailable:
    """Return a better reason for an error of the connection, where there is one; else the error."""
    if settings.redis_url is None or isinstance(error, StorageUnsuitable):
        return error
    wrong = mismatch(settings.redis_url.get_secret_value())
    return error if wrong is None else StorageUnsuitable(wrong)


def mismatch(address: str) -> str | None:
    """Return what is wrong with an address, None if it is right or that can't be known."""
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return None
    host, port, wants_tls = parts.hostname or "localhost", parts.port or 6379, parts.scheme == "rediss"
    try:
        if wants_tls and _speaks_tls(host, port):
            return None
        said = _said_plainly(host, port)
        if said.startswith((b"HTTP/", b"<")):
            return _HTTP.format(shown(address))
        if said.startswith((b"+", b"-")):
            return _NO_TLS.format(shown(address)) if wants_tls else None
        return _TLS.format(shown(address)) if not wants_tls and _speaks_tls(host, port) else None
    except (OSError, ValueError):  # nothing is there, or it has no such name: the client says so
        return None


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, port), PATIENCE_S) as connection:
        try:
            context.wrap_socket(connection, server_hostname=host).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")  # such as that it wants a certificate of ours
        except OSError:  # it closes, or says nothing in time
            return False
    return True


def _said_plainly(host: str, port: int) -> bytes:
    """Return what is answered to a PING: something by any Redis, also by one that wants a password first."""
    with socket.create_connection((host, port), PATIENCE_S) as connection:
        connection.sendall(b"PING\r\n\r\n")
        try:
            return connection.recv(64)
        except OSError:
            return b""
