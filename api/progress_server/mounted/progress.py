"""`Progress`: the server as a part of an app.

from progress_server import Progress

progress = Progress(authenticate=current_user)
app = FastAPI(lifespan=progress.lifespan)
app.mount("/progress", progress.app)
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import SetupError
from progress_broker.settings import Settings, load_settings
from progress_server.app import create_app
from progress_server.context import OUTER
from progress_server.middleware.stack import Edge
from progress_server.mounted.around import Around
from progress_server.mounted.authenticator import AppAuthenticator, Authenticate
from progress_server.mounted.operations import Operations
from progress_server.server.reload import Reloaded


class Progress:
    """A server that is mounted in an app, and runs within the app's lifespan.

    `authenticate` names the caller of each request: a FastAPI dependency, or any `async (connection)`, that returns a
    `Principal`, its name, or None if the caller is not signed in. A principal without grants, as one that is only
    named, may read and cancel the operations that it owns, and nothing else. Without `authenticate`, `PROGRESS_AUTH`
    decides.

    The settings are read from the environment unless they are given. `hosts`, `csrf`, `cors` and `hsts` apply those
    checks and headers here, as the settings say; usually the app around has them.

    Raises `SetupError` for settings that are invalid, or that let everybody in.
    """

    def __init__(
        self,
        authenticate: Authenticate | None = None,
        *,
        settings: Settings | None = None,
        hosts: bool = False,
        csrf: bool = False,
        cors: bool = False,
        hsts: bool = False,
    ) -> None:
        if not isinstance(settings, Settings | None):
            raise TypeError(f"settings: expected `Settings`, or None, not a value of type {type(settings).__name__}")
        if authenticate is not None and not callable(authenticate):
            raise TypeError(f"authenticate: expected a dependency, such as a function, not {authenticate!r:.60}")
        self._settings, self._reread = settings or load_settings(), None if settings else load_settings
        if authenticate is None and self._settings.auth == "none" and not self._settings.insecure:
            raise SetupError(
                "everybody could read and cancel all operations: pass `authenticate=`, set PROGRESS_AUTH, or set"
                " PROGRESS_INSECURE=1 if a proxy in front of the app authenticates callers"
            )
        self._authenticator = None if authenticate is None else AppAuthenticator(authenticate)
        self._edge = Edge(hosts=hosts, csrf=csrf, cors=cors, hsts=hsts)
        self._server = self._new_server()
        self._ran = self._runs = False
        self.app: ASGIApp = self._serve
        """The ASGI app to mount. By itself it also runs its own lifespan."""
        self.operations = Operations(lambda: self._server)
        """Operations for the handlers of the app."""

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Run the server: the lifespan of the app that it is mounted in, or a part of it.

        While Redis is unavailable the server starts all the same, and answers 503. Raises `SetupError` if it can never
        be used.
        """
        if self._runs:
            raise SetupError("this Progress runs already: create another one for another app")
        if self._settings.redis_url is None:
            raise SetupError("the progress server in this app needs a Redis: set PROGRESS_REDIS_URL")
        self._runs = True
        try:
            if self._ran:  # so that nothing of the run before is left
                self._server = self._new_server()
            self._ran = True
            async with self._server.router.lifespan_context(self._server):
                yield
        finally:
            self._runs = False

    def reload(self) -> Reloaded:
        """Read the settings again, with the files that they name: keys, rates, the log level. Open streams go on.

        All that is new is taken, or nothing: then it raises `SetupError`. `progress-broker reload` does it at all
        replicas.
        """
        report: Reloaded = self._server.state.reloader.reload()
        return report

    def around(self, app: ASGIApp, at: str = "/progress") -> ASGIApp:
        """Return an ASGI app that serves the server under the path `at`, and `app` everywhere else.

        It is for apps that can't mount others or have no lifespan, such as Django's. Where the ASGI server has no
        lifespan either (daphne), the first request starts the server.
        """
        return Around(self.app, self.lifespan, app, at)

    def _new_server(self) -> FastAPI:
        return create_app(self._settings, authenticator=self._authenticator, edge=self._edge, reread=self._reread)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Router(lifespan=self.lifespan)(scope, receive, send)
        else:
            # What the app around has stored in the state is its own, and so are the names there.
            ours = {**scope, "state": {}, OUTER: scope}
            if not ours["path"].startswith(ours.get("root_path", "")):
                # A proxy has removed the prefix that the app around has as `root_path`. The router would find no route.
                ours["path"] = ours.get("app_root_path", "") + ours["path"]
            await self._server(ours, receive, send)
