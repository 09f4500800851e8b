"""Why a request got no response: what happened, and what to look at."""

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from progress_broker.errors import ServerUnavailable, SetupError

_OTHER_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


def failure(url: str, error: Exception) -> ServerUnavailable:
    """Return the error for a request to the server at `url` that got no response."""
    if isinstance(error, httpx.TimeoutException):
        return ServerUnavailable(f"the server at {url} did not answer in time{_by_proxy(url)}")
    return ServerUnavailable(f"the server at {url} can't be reached: {_reason(error)}{_by_proxy(url)}")


@contextmanager
def proxies_checked() -> Iterator[None]:
    """Raise `SetupError` if the environment names a proxy that httpx can't use, while the block makes a client."""
    try:
        yield
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise SetupError(f"HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names a proxy that can't be used: {error}") from None


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.ProxyError):
        return f"the proxy answered {error}"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause)
        if isinstance(cause, ssl.SSLError):
            return (
                f"TLS failed ({cause.reason or cause}): does it speak HTTPS? Without, PROGRESS_URL begins with http://"
            )
        if isinstance(cause, socket.gaierror):
            return f"its host name has no address ({cause.strerror}): is PROGRESS_URL right?"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens there (connection refused): does the server run, and is PROGRESS_URL right?"
    return str(error) or type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    said = f"its certificate is not accepted ({error.verify_message.rstrip('.')})"
    if error.verify_code in _OTHER_NAME:
        return f"{said}: use a name in PROGRESS_URL that the certificate has"
    file = os.environ.get("SSL_CERT_FILE")
    if file and not os.path.isfile(file):
        return f"{said}: SSL_CERT_FILE names {file}, which is no file"
    return f"{said}: set SSL_CERT_FILE to a file with the certificate of its CA, and begin the program anew"


def _by_proxy(url: str) -> str:
    """Return which proxy was asked, if any: it may be the reason. Its URL may have a password, so it is not shown."""
    address, proxies = urlsplit(url), getproxies()
    name = next((one for one in (address.scheme, "all") if proxies.get(one)), None)
    if name is None or proxy_bypass(address.hostname or ""):
        return ""
    return f" (by the proxy of {name.upper()}_PROXY, which is not asked for hosts in NO_PROXY)"
