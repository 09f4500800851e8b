"""What every request passes and every answer carries, whatever is behind it."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from progress_broker.settings import LOOPBACK, Settings
from progress_server.middleware.csrf import ForeignPages
from progress_server.middleware.security_headers import AnswerHeaders
from progress_server.middleware.trusted_hosts import Hosts, names_answered

PREFLIGHT_S = 7200
"""How long a browser may keep the answer to a preflight: the longest that any of them does."""

_READING = ("GET", "HEAD")
_METHODS = (*_READING, "POST", "DELETE")

_ANY_HEADER = ("*",)
"""A preflight is answered with the headers it asks for. What clients and tracing libraries add is not ours to list, and
no header of a page's choice gives it more than it may do anyway: the origin, the credentials and the method decide."""

_TOLD = (
    "ETag",
    "Location",
    "Operation-Location",
    "Progress-Connection",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
)


def edged(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the app behind its edge. Nothing may stand before it, or that thing's refusals would lack the headers."""
    any_may_read = "*" in settings.cors_origins
    app = ForeignPages(app, () if any_may_read else settings.cors_origins)
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=_READING if any_may_read else _METHODS,
            allow_headers=_ANY_HEADER,
            expose_headers=_TOLD,
            # A page of anybody's may then read what anybody may read, but not what this browser's user may.
            allow_credentials=not any_may_read,
            max_age=PREFLIGHT_S,
        )
    names = names_answered(settings)
    if names is not None:
        app = Hosts(app, names)
    # On loopback it would turn every other server of this machine's localhost into one of https.
    https_only = settings.tls_cert is not None and settings.host not in LOOPBACK
    return AnswerHeaders(app, https_only=https_only)
