"""TLS, for who serves without a proxy in front."""

import ssl

from progress_broker.errors import SetupError
from progress_broker.settings import Settings


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
