"""The TLS certificate of a server: it can be replaced while the server runs, and its expiry is known."""

import ssl
from collections.abc import Callable
from pathlib import Path

import uvicorn
from cryptography import x509

from progress_broker.errors import SetupError
from progress_broker.settings import Settings
from progress_server.context import LiveSettings
from progress_server.server.sockets import check_certificate


class Certificate:
    """The certificate that new connections get. Those that are open keep the one that they have."""

    def __init__(self, live: LiveSettings) -> None:
        self._live = live
        self._context: ssl.SSLContext | None = None

    def context(self, config: uvicorn.Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """Return the context of a server that starts (uvicorn's `ssl_context_factory`)."""
        self._context = default()
        if config.ssl_certfile is not None:
            self._live.certificate_expires_at = expiry_of(Path(config.ssl_certfile))
        return self._context

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Check a certificate, and return what gives it to new connections."""
        cert, key, context = settings.tls_cert, settings.tls_key, self._context
        if cert is None or key is None or context is None:
            return lambda: None
        check_certificate(settings)
        expires_at = expiry_of(cert)

        def take() -> None:
            context.load_cert_chain(cert, key, lambda: "-")
            self._live.certificate_expires_at = expires_at

        return take


def expiry_of(path: Path) -> float:
    """Return when the first certificate of a file expires, in seconds since 1970."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()
    except (OSError, ValueError) as error:
        raise SetupError(f"can't read the certificate {path} of PROGRESS_TLS_CERT: {error}") from None
