"""All middleware in one list, in the order in which a request passes it."""

import logging

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware

from progress_broker.limits.limiter import Limiter
from progress_broker.runtime.tally import Tally
from progress_broker.settings import LOOPBACK, Settings
from progress_server.auth.guard import Guard
from progress_server.auth.middleware import Authentication
from progress_server.callback.authenticator import Callback
from progress_server.callback.middleware import Doorstep, Visits
from progress_server.limits.admission import Admission
from progress_server.limits.middleware import LimitsMiddleware
from progress_server.middleware.access_log import Access
from progress_server.middleware.csrf import ForeignPages
from progress_server.middleware.security_headers import AnswerHeaders
from progress_server.middleware.startup import UntilStarted
from progress_server.middleware.trusted_hosts import Hosts, names_answered

PREFLIGHT_S = 7200
"""How long a browser may keep the answer to a preflight: the longest that any of them does."""

ERRORS = Middleware(ServerErrorMiddleware)
"""Where faults become answers. The framework puts it there; it stands in the list for its place."""

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


def stack(
    settings: Settings, tally: Tally, guard: Guard, limiter: Limiter, callback: Callback | None
) -> list[Middleware]:
    """Return what a request passes before its route, the outermost first.

    What stands before `ERRORS` holds for every answer, those to faults included, so a refusal of any other middleware
    has the headers too. Of that, what costs nothing is asked first.

    Strangers take no places: those are had by who is somebody. But where a back end is asked who that is, places are
    what keeps a stampede from it.
    """
    admission = Middleware(Admission, rate=settings.handshakes_per_s, tally=tally)
    return [
        Middleware(Access, tally=tally, level=logging.INFO if settings.access_log else logging.DEBUG),
        Middleware(AnswerHeaders, https_only=_is_https_only(settings)),
        *_hosts(settings),
        *_cors(settings),
        Middleware(ForeignPages, friends=() if _any_may_read(settings) else settings.cors_origins),
        ERRORS,
        Middleware(UntilStarted),
        *([] if callback is None else _before_the_question(callback, limiter, tally, admission)),
        Middleware(Authentication, guard=guard),
        *([admission] if callback is None else []),
        Middleware(LimitsMiddleware, limiter=limiter, tally=tally),
    ]


def _before_the_question(callback: Callback, limiter: Limiter, tally: Tally, admission: Middleware) -> list[Middleware]:
    doorstep = Middleware(Doorstep, threshold=callback.threshold, limiter=limiter, tally=tally)
    return [doorstep, admission, Middleware(Visits)]


def _is_https_only(settings: Settings) -> bool:
    # On loopback it would turn every other server of this machine's localhost into one of https.
    return settings.tls_cert is not None and settings.host not in LOOPBACK


def _hosts(settings: Settings) -> list[Middleware]:
    names = names_answered(settings)
    return [] if names is None else [Middleware(Hosts, names=names)]


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
            # A page of anybody's may then read what anybody may read, but not what this browser's user may.
            allow_credentials=not any_may_read,
            max_age=PREFLIGHT_S,
        )
    ]


def _any_may_read(settings: Settings) -> bool:
    return "*" in settings.cors_origins
