"""A port for the metrics of all processes of a server, and for health checks, apart from the one for clients.

It answers a few fixed GET requests without credentials, so it listens on loopback unless told otherwise.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from progress_broker.errors import SetupError
from progress_broker.settings import Settings

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a request, and its response, may take."""
LONGEST_HEAD = 16_384

_TEXT = "text/plain; version=0.0.4; charset=utf-8"

Metrics = Callable[[], Awaitable[str]]
Ready = Callable[[], Awaitable[bool]]


class MetricsPort:
    """Answers `/metrics`, `/livez` and `/readyz`."""

    def __init__(self, metrics: Metrics, ready: Ready) -> None:
        self._metrics, self._ready = metrics, ready

    @asynccontextmanager
    async def listening(self, settings: Settings) -> AsyncIterator[None]:
        """Listen where the settings say; if they name no port, do nothing. Raises `SetupError`."""
        if settings.metrics_port is None:
            yield
            return
        host, port = settings.metrics_host, settings.metrics_port
        try:
            server = await asyncio.start_server(self._serve, host, port, limit=LONGEST_HEAD)
        except OSError as error:
            why = error.strerror or str(error)
            raise SetupError(
                f"can't listen on {host}:{port} for metrics ({why}): choose another PROGRESS_METRICS_PORT, or a"
                " PROGRESS_METRICS_HOST that is an address of this machine"
            ) from None
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # there is nobody to tell
        except Exception:
            log.exception("a request for metrics failed")
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            status, body = "405 Method Not Allowed", "only GET\n"
        elif path == "/metrics":
            status, body = "200 OK", await self._metrics()
        elif path == "/livez":
            status, body = "200 OK", "alive\n"
        elif path == "/readyz":
            status, body = ("200 OK", "ready\n") if await self._ready() else ("503 Service Unavailable", "not ready\n")
        else:
            status, body = "404 Not Found", "there are /metrics, /livez and /readyz\n"
        data = body.encode()
        lines = (f"HTTP/1.1 {status}", f"Content-Type: {_TEXT}", f"Content-Length: {len(data)}", "Connection: close")
        return "\r\n".join((*lines, "", "")).encode() + (b"" if method == "HEAD" else data)
