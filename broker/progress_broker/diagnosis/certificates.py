"""How long a server's TLS certificate is still valid."""

import asyncio
import ssl
from contextlib import suppress

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.routing.address import Endpoint

SOON_DAYS = 14
_DAY_S = 86_400
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_RENEW = "renew the certificate (and its chain), and have the server at this address load it"


async def examine_certificate(at: str, endpoint: Endpoint, context: ssl.SSLContext, now: float) -> Finding:
    """Do a TLS handshake; return whether the certificate is valid and for how long, or why it is not.

    `now` is in seconds since 1970. Raises `OSError` if nothing answers.
    """
    try:
        _, writer = await asyncio.open_connection(
            endpoint.host, endpoint.port, ssl=context, server_hostname=endpoint.host
        )
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return Finding(Check.CERTIFICATE, Level.FAULT, at, "the TLS certificate has expired", _RENEW)
        return Finding(
            Check.CERTIFICATE,
            Level.FAULT,
            at,
            f"the TLS certificate is not accepted: {error.verify_message}",
            "use a name that the certificate has, or name its CA (SSL_CERT_FILE; for Redis ?ssl_ca_certs=…)",
        )
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return _of_date(at, ssl.cert_time_to_seconds(certificate["notAfter"]), now)


def _of_date(at: str, expires: float, now: float) -> Finding:
    days = (expires - now) / _DAY_S
    figures = {"days_left": round(days, 2)}
    if days <= 0:
        return Finding(Check.CERTIFICATE, Level.FAULT, at, "the TLS certificate has expired", _RENEW, figures)
    said = f"the TLS certificate expires in {days:.0f} days"
    if days < SOON_DAYS:
        return Finding(Check.CERTIFICATE, Level.WARNING, at, said, _RENEW, figures)
    return Finding(Check.CERTIFICATE, Level.GOOD, at, said, figures=figures)
