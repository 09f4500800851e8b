"""The `Host` check. A page of a stranger's can't read what another origin answers, but a name can be pointed anywhere:
once its own leads to our address (DNS rebinding), its origin is ours. What the browser still says is the name.
"""

from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.settings import LOOPBACK, Settings
from progress_server.http.problems import problem

_SHOWN = 100


def names_answered(settings: Settings) -> frozenset[str] | None:
    """Return the names that are answered, or None for all.

    Where nobody has to prove who they are, loopback keeps strangers out, and a page is what brings them in. With
    authentication it is of no use to them: cookies of ours don't come with a name of theirs.
    """
    given = frozenset(settings.allowed_hosts)
    unguarded = settings.auth == "none" and settings.host in LOOPBACK
    if "*" in given or not (given or unguarded):
        return None
    return given | {"localhost"} if unguarded else given


class Hosts:
    """Middleware that refuses what is asked of another name than ours.

    Addresses pass: who asks for one was not led here by a name, and probes and scrapers know nothing else. So does a
    request that names no host, as browsers always do.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = frozenset(name for name in names if not name.startswith("*."))
        self._under = tuple(name[1:] for name in names if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, unless it is for somebody else."""
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
        return name in self._names or name.endswith(self._under) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") else name)
    except ValueError:
        return False
    return True


def _misdirected(host: str) -> ASGIApp:
    return problem(
        "misdirected",
        f"this server does not answer to {host[:_SHOWN]!r}: use its address or localhost, or name the host in"
        " PROGRESS_ALLOWED_HOSTS",
    )
