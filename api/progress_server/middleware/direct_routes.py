"""A short way to the busiest endpoints."""

from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import BrokerError
from progress_server.http.problems import problem_of, unanswered
from progress_server.http.routing import DirectRoute


class DirectRoutes:
    """The innermost middleware: it calls the endpoints of direct routes, past the layers in which the framework handles
    errors, closes files and finds routes. Those are a tenth of a stream's handshake (`bench/storm.py`)."""

    def __init__(self, app: ASGIApp, routes: Sequence[DirectRoute]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for which there is a direct route; pass others on."""
        for route in self._routes:
            if (id := route.id_in(scope)) is not None:
                scope["route"] = route
                try:
                    await route.answer(id, scope, receive, send)
                except BrokerError as error:
                    await problem_of(error)(scope, receive, send)
                    error.__traceback__ = None  # it refers to the request, and the request to it
                except ClientDisconnect:
                    await unanswered(scope, receive, send)
                return
        await self._app(scope, receive, send)
