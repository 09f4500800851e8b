"""The configuration of uvicorn, and the preparation of the process: the same for both kinds of server."""

import gc
import resource
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from progress_broker.settings import Settings
from progress_server.protocols.choice import http_protocol, websocket_protocol
from progress_server.server.certificate import Certificate
from progress_server.server.ipv4_clients import IPv4Clients
from progress_server.server.sockets import BACKLOG, check_certificate
from progress_server.websocket.messages import MAX_MESSAGE_BYTES

KEEP_ALIVE_S = 75  # longer than proxies keep idle connections, so that the proxy closes them first
LEAVE_S = 2
"""How long remaining connections and requests may take once a server has drained, before they are cut."""
GC_THRESHOLDS = (5_000, 5, 1_000)
"""A connection is about eight objects that live long and are freed without the collector. So the collector looks at few
of them at a time, at most twice, and hardly ever at all of them (`bench/collector.py`)."""


def config_of(app: ASGIApp, settings: Settings, certificate: Certificate) -> uvicorn.Config:
    """Return uvicorn's configuration; raise `SetupError` if the certificate can't be used."""
    check_certificate(settings)
    inner: Any = app  # uvicorn's type of an app is narrower than Starlette's
    # Here and not by uvicorn, which would look at the client's address before `IPv4Clients`.
    proxied: Any = ProxyHeadersMiddleware(inner, trusted_hosts=list(settings.trusted_proxies))
    return uvicorn.Config(
        IPv4Clients(proxied),
        http=http_protocol(settings, _most_files()),
        ws=websocket_protocol() or "none",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,  # each client would need its own compression, and memory for it
        ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.stuck_timeout_s,  # a ping waits behind everything that a slow client has not read yet
        backlog=BACKLOG,  # else uvicorn listens again, with a backlog of its own
        log_config=None,  # uvicorn's lines go where all others go
        log_level=settings.log_level,
        access_log=False,  # the app has its own (`api/progress_server/middleware/access_log.py`)
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LEAVE_S,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
        ssl_context_factory=None if settings.tls_cert is None else certificate.context,
    )


def certificate_of(app: FastAPI) -> Certificate:
    """Return the certificate of an app's server. The app's reloads replace it."""
    certificate = Certificate(app.state.live)
    app.state.reloader.add(certificate.prepare)
    return certificate


def freeze_what_started() -> None:
    """Exclude all existing objects from garbage collection: they live as long as the server."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def raise_file_limit() -> None:
    """Raise this process' limit of open files to the maximum that it may set: each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _most_files() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize
