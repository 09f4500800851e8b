"""Authentication before routing, so that no route can forget it: only the paths in `http/paths.py` need none."""

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import BrokerError, Unauthenticated
from progress_server.auth.guard import ClientDisconnect, Guard, RejectedByApp
from progress_server.auth.principal import STATE
from progress_server.http.paths import class_of
from progress_server.http.rejections import COME_BACK_S, reject, reject_with_status
from progress_server.observability.logs import RejectionLog


class AuthenticationMiddleware:
    """Middleware that rejects requests without valid credentials, and stores the principal of the others."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard
        self._log = RejectionLog()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find the principal and pass the request on; reject it if its credentials are invalid or can't be checked."""
        if scope["type"] in ("http", "websocket") and not class_of(scope).is_open:
            try:
                principal = self._guard.everyone or await self._guard.authenticate(HTTPConnection(scope))
            except ClientDisconnect:
                return
            except RejectedByApp as error:
                await reject_with_status(error.status, error.detail, error.headers, scope, receive, send)
                return
            except BrokerError as error:
                if isinstance(error, Unauthenticated):
                    self._log.record(scope, error)
                await reject(error, scope, receive, send, retry_s=COME_BACK_S)
                return
            scope.setdefault("state", {})[STATE] = principal
        await self._app(scope, receive, send)
