"""Authentication before routing: a route can't forget it, as only what is listed here is open."""

import logging

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from api.auth.guard import Guard
from api.principal import STATE
from api.problems import PASSING, problem
from api.refusals import refusal
from api.ws.refusals import refuse
from broker.errors import BrokerError, Unauthenticated

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/", "/livez", "/readyz", "/docs", "/openapi.json"})
OPEN_FOLDER = "/web/"
"""What the page is made of, which is the same for everybody."""

DETAIL = "this call takes a token that is valid now: send `Authorization: Bearer …`, or a ticket where one is taken"


class Authentication:
    """Middleware that lets nobody through who has not proved who they are, and says who it is."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who speaks, and go on; or answer."""
        if scope["type"] in ("http", "websocket") and not is_open(scope):
            try:
                principal = await self._guard.authenticate(HTTPConnection(scope))
            except BrokerError as error:
                if scope["type"] == "websocket":
                    await _refuse(WebSocket(scope, receive, send), error)
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
    if not isinstance(error, Unauthenticated):
        if error.code not in PASSING:
            return problem(error.code, error.detail, field=error.field, retry_s=error.retry_s)
        return refusal(error.code, error.detail, HTTPConnection(scope).headers.get("accept"), error.retry_s or 2)
    _note(scope, error)
    answer = problem(error.code, DETAIL)
    answer.headers["WWW-Authenticate"] = "Bearer"
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def _refuse(websocket: WebSocket, error: BrokerError) -> None:
    if isinstance(error, Unauthenticated):
        _note(websocket.scope, error)
        await refuse(websocket, error.code, DETAIL)
    else:
        await refuse(websocket, error.code, error.detail, field=error.field, retry_s=error.retry_s)


def _note(scope: Scope, error: Unauthenticated) -> None:
    # Why it failed would help who guesses: it is told to the operator alone, and the answer is the same for all.
    log.info("a call of %r is refused: %s", scope["path"], error.detail, extra={"path": scope["path"]})
