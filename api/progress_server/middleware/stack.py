"""The list of all middleware, in the order in which a request passes through it."""

from dataclasses import dataclass

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware

from progress_broker.limits.limiter import Limiter
from progress_broker.runtime.tally import Tally
from progress_broker.settings import LOOPBACK, Settings
from progress_server.auth.guard import Guard
from progress_server.auth.middleware import AuthenticationMiddleware
from progress_server.callback.authenticator import CallbackAuthenticator
from progress_server.callback.middleware import AuthorizedConnectionMiddleware, PreAuthLimits
from progress_server.context import LiveSettings
from progress_server.limits.admission import AdmissionMiddleware
from progress_server.limits.middleware import LimitsMiddleware
from progress_server.middleware.access_log import AccessLogMiddleware
from progress_server.middleware.compression import CompressionMiddleware
from progress_server.middleware.csrf import CsrfMiddleware
from progress_server.middleware.security_headers import SecurityHeadersMiddleware
from progress_server.middleware.startup import StartupMiddleware
from progress_server.middleware.trusted_hosts import TrustedHosts, names_answered
from progress_server.middleware.unreadable import UnreadableMiddleware

PREFLIGHT_S = 7200
"""How long a browser may cache a preflight response. Browsers accept no longer time."""

ERRORS = Middleware(ServerErrorMiddleware)
"""Turns exceptions into responses. The framework adds it; here it only marks its position in the list."""

_READING = ("GET", "HEAD")
_METHODS = (*_READING, "POST", "PUT", "PATCH", "DELETE")

_ANY_HEADER = ("*",)
"""A preflight may ask for any headers. Clients and tracing libraries add headers that we can't list. This is safe: the
origin, the credentials and the method decide what a page may do, and no other header does."""

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


@dataclass(frozen=True, slots=True)
class Edge:
    """Which checks and headers of a server's edge to apply. Inside another app they are usually that app's."""

    hosts: bool = True
    """Check the `Host` header."""
    csrf: bool = True
    """Reject requests from pages of other origins that change something."""
    cors: bool = True
    """Let pages of the origins in the settings read responses."""
    hsts: bool = True
    """Send `Strict-Transport-Security` where the settings have a certificate."""


FULL_EDGE = Edge()


def build_stack(
    settings: Settings,
    tally: Tally,
    guard: Guard,
    limiter: Limiter,
    callback: CallbackAuthenticator | None,
    live: LiveSettings,
    edge: Edge = FULL_EDGE,
) -> list[Middleware]:
    """Return the middleware that a request passes before its route, the outermost first.

    Middleware before `ERRORS` applies to every response, including internal errors, and to rejections by later
    middleware. So those responses have the headers too. Among these, the checks without any cost come first.

    Authentication comes before the limits, so that unauthenticated clients take no slots. With `auth=callback` the
    order is different: limits come before the call to the back end, to protect it from too many calls. Without
    authentication, handshakes are limited first: when all clients reconnect at once, most are rejected there.
    """
    admission = Middleware(AdmissionMiddleware, live=live, tally=tally)
    early = guard.everyone is not None
    return [
        Middleware(AccessLogMiddleware, tally=tally, live=live),
        Middleware(SecurityHeadersMiddleware, https_only=edge.hsts and _is_https_only(settings)),
        Middleware(UnreadableMiddleware),
        *(_hosts(settings) if edge.hosts else ()),
        *(_cors(settings) if edge.cors else ()),
        *(_csrf(settings) if edge.csrf else ()),
        *([admission] if early else ()),
        ERRORS,
        Middleware(StartupMiddleware),
        *([] if callback is None else _before_the_question(callback, limiter, tally, admission)),
        Middleware(AuthenticationMiddleware, guard=guard),
        *([admission] if callback is None and not early else ()),
        Middleware(LimitsMiddleware, limiter=limiter, tally=tally),
        Middleware(CompressionMiddleware),
    ]


def _before_the_question(
    callback: CallbackAuthenticator, limiter: Limiter, tally: Tally, admission: Middleware
) -> list[Middleware]:
    pre_auth_limits = Middleware(PreAuthLimits, address_rate=callback.address_rate, limiter=limiter, tally=tally)
    return [pre_auth_limits, admission, Middleware(AuthorizedConnectionMiddleware)]


def _is_https_only(settings: Settings) -> bool:
    # On loopback it would make browsers use HTTPS for every other server on this machine's localhost.
    return settings.tls_cert is not None and settings.host not in LOOPBACK


def _hosts(settings: Settings) -> list[Middleware]:
    names = names_answered(settings)
    return [] if names is None else [Middleware(TrustedHosts, names=names)]


def _csrf(settings: Settings) -> list[Middleware]:
    return [Middleware(CsrfMiddleware, trusted_origins=() if _any_may_read(settings) else settings.cors_origins)]


def _cors(settings: Settings) -> list[Middleware]:
    if not settings.cors_origins:
        return []
    any_may_read = _any_may_read(settings)
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=_READING if any_may_read else _METHODS,
            allow_headers=_ANY_HEADER,
            expose_headers=_TOLD,
            # With `*` any page may read what is public, but must not read with the cookies of the browser's user.
            allow_credentials=not any_may_read,
            max_age=PREFLIGHT_S,
        )
    ]


def _any_may_read(settings: Settings) -> bool:
    return "*" in settings.cors_origins
