"""All that is checked through the URL of a server, as its clients reach it: the proxies before it are checked, too."""

import ipaddress
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

from progress_broker.diagnosis.bounded import PATIENCE_S, all_of, bounded
from progress_broker.diagnosis.certificates import examine_certificate
from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.diagnosis.redis import Examined
from progress_broker.errors import BrokerError
from progress_broker.routing.address import Endpoint
from progress_broker.settings import LOOPBACK, Settings
from progress_cli.doctor.answers import Anonymous, examine_errors, examine_metrics, examine_server
from progress_cli.doctor.events import ARRIVAL_S, examine_compression, examine_forwarded, examine_stream
from progress_cli.doctor.http2 import examine_http2
from progress_client.http.connection import AsyncConnection

_REACH = "start the server and what is before it, or correct the URL"


async def examine_url(
    settings: Settings,
    url: str,
    *,
    patience_s: float = PATIENCE_S,
    arrival_s: float = ARRIVAL_S,
    clock: Callable[[], float] = time.time,
) -> Examined:
    """Check the server at a URL, with the credentials of the settings.

    Some checks create an operation of their own, and delete it: an event that takes longer than `arrival_s` is held
    back. They take up to twice `patience_s`, the others at most that. Raises `SetupError` if the URL or the credentials
    can't be used.
    """
    settings = settings.model_copy(update={"url": url, "redis_url": None})
    address = urlsplit(url)
    local = is_loopback(address.hostname or "")

    def run(check: Check, work: Awaitable[Iterable[Finding]], most_s: float = patience_s) -> Awaitable[list[Finding]]:
        return bounded(check, url, work, most_s)

    context = ssl.create_default_context()
    checks: list[Awaitable[list[Finding]]] = []
    if address.scheme == "https":
        endpoint = Endpoint(address.hostname or "", address.port or 443)
        checks.append(run(Check.CERTIFICATE, _certificate(url, endpoint, context, clock())))
        checks.append(run(Check.HTTP2, examine_http2(url, endpoint)))
    elif not local:
        checks.append(run(Check.HTTP2, _no_tls(url)))
    async with Anonymous(url, context, patience_s) as anonymous, AsyncConnection(settings) as connection:
        try:
            await anonymous.get("/livez")
        except BrokerError as error:
            away = Finding(Check.SERVER, Level.FAULT, url, error.detail, _REACH)
            return Examined([away, *await all_of(*checks)], reached=False)
        checks += [
            run(Check.SERVER, examine_server(anonymous)),
            run(Check.ERRORS, examine_errors(anonymous)),
            run(Check.METRICS, examine_metrics(anonymous, local=local)),
            run(Check.STREAM, examine_stream(connection, patience_s, arrival_s), 2 * patience_s),
            run(Check.COMPRESSION, examine_compression(connection, patience_s, arrival_s), 2 * patience_s),
            run(Check.FORWARDED, examine_forwarded(connection, patience_s, arrival_s, local=local), 2 * patience_s),
        ]
        return Examined(await all_of(*checks), reached=True)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


async def _certificate(url: str, endpoint: Endpoint, context: ssl.SSLContext, now: float) -> Iterable[Finding]:
    return [await examine_certificate(url, endpoint, context, now)]


async def _no_tls(url: str) -> Iterable[Finding]:
    return [
        Finding(
            Check.HTTP2,
            Level.WARNING,
            url,
            "the URL is without TLS: others on the way can read tokens, and browsers open six streams at most, as they"
            " speak HTTP/2 only over TLS",
            "put a proxy with TLS and HTTP/2 in front (docs/how-to/proxies.md)",
        )
    ]
