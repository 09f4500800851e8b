"""Authentication before routing: a route can't forget it, as only what is listed here is open."""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from progress_broker.errors import BrokerError, Unauthenticated
from progress_server.auth.guard import Guard
from progress_server.auth.principal import STATE
from progress_server.callback.disconnect_watcher import ClientLeft
from progress_server.http.problems import PASSING, PROVE, problem, unauthenticated
from progress_server.http.refusals import refusal
from progress_server.http.ws_refusals import refuse
from progress_server.observability.logs import RefusedLog

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
OPEN_FOLDER = "/web/"
"""What the page is made of, which is the same for everybody."""


class Authentication:
    """Middleware that lets nobody through who has not proved who they are, and says who it is."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard
        self._log = RefusedLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who speaks, and go on; or answer."""
        if scope["type"] in ("http", "websocket") and not is_open(scope):
            try:
                principal = await self._guard.authenticate(HTTPConnection(scope))
            except ClientLeft:
                return
            except BrokerError as error:
                if isinstance(error, Unauthenticated):
                    self._log.note(scope, error)
                if scope["type"] == "websocket":
                    detail = PROVE if isinstance(error, Unauthenticated) else error.detail
                    await refuse(WebSocket(scope, receive, send), error.code, detail, retry_s=error.retry_s)
                else:
                    await _answer(scope, error)(scope, receive, send)
                return
            scope.setdefault("state", {})[STATE] = principal
        await self._app(scope, receive, send)


def is_open(scope: Scope) -> bool:
    """Return whether nobody has to prove anything to have this."""
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _answer(scope: Scope, error: BrokerError) -> ASGIApp:
    if isinstance(error, Unauthenticated):
        return unauthenticated()
    if error.code not in PASSING:
        return problem(error.code, error.detail, field=error.field, retry_s=error.retry_s)
    return refusal(error.code, error.detail, HTTPConnection(scope).headers.get("accept"), error.retry_s or 2)
