"""The `Host` check, against DNS rebinding.

A foreign page can't read responses of another origin. But its owner can point its own host name to our address: then
the browser sees one origin. The `Host` header still has the foreign name, so we reject names that are not ours.
"""

from functools import lru_cache
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.settings import LOOPBACK, Settings
from progress_server.http.problems import problem

_SHOWN = 100
_LONGEST_CACHED = 64


def names_answered(settings: Settings) -> frozenset[str] | None:
    """Return the accepted host names, or None for all.

    Without authentication, binding to loopback keeps attackers out, and DNS rebinding would let them in. With
    authentication it does not help them: the browser does not send our cookies to their host name.
    """
    given = frozenset(settings.allowed_hosts)
    unguarded = settings.auth == "none" and settings.host in LOOPBACK
    if "*" in given or not (given or unguarded):
        return None
    return given | {"localhost"} if unguarded else given


class TrustedHosts:
    """Middleware that rejects requests for host names that are not ours.

    IP addresses are accepted: DNS rebinding needs a name, and probes and scrapers often know only the address. Requests
    without `Host` are accepted too, because browsers always send one.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = frozenset(name for name in names if not name.startswith("*."))
        self._under = tuple(name[1:] for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless it is for another host name."""
        if scope["type"] != "lifespan":
            for name, value in scope["headers"]:
                if name == b"host" and not self._answers(value.decode("latin-1")):
                    await _misdirected(value.decode("latin-1"))(scope, receive, send)
                    return
        await self._app(scope, receive, send)

    def _answers(self, host: str) -> bool:
        name = host.lower()
        if name.rpartition("]")[2].rpartition(":")[1]:
            name = name.rpartition(":")[0]
        name = name.removesuffix(".")
        if name in self._names or name.endswith(self._under):
            return True
        return _is_known_address(name) if len(name) <= _LONGEST_CACHED else _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return False
    return True


_is_known_address = lru_cache(maxsize=1024)(_is_address)  # to parse one costs as much as three layers of middleware


def _misdirected(host: str) -> ASGIApp:
    return problem(
        "misdirected",
        f"this server does not accept the host name {host[:_SHOWN]!r}; use its address or localhost, or add the name to"
        " PROGRESS_ALLOWED_HOSTS",
    )
