"""Whether browsers can speak HTTP/2 with what a URL leads to: over HTTP/1.1 they open six connections at most."""

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.routing.address import Endpoint


async def examine_http2(url: str, endpoint: Endpoint) -> Iterable[Finding]:
    """Do a TLS handshake that offers HTTP/2. Raises `OSError` if nothing answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # another check is about the certificate
    context.set_alpn_protocols(["h2", "http/1.1"])
    _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, server_hostname=endpoint.host)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    if chosen == "h2":
        return [Finding(Check.HTTP2, Level.GOOD, url, "HTTP/2 is spoken")]
    return [
        Finding(
            Check.HTTP2,
            Level.WARNING,
            url,
            "HTTP/2 is not spoken: all tabs of a browser together can open six streams",
            "put a proxy with HTTP/2 in front, or switch it on there: nginx `listen 443 ssl http2`, HAProxy `alpn"
            " h2,http/1.1` (docs/how-to/proxies.md)",
        )
    ]
