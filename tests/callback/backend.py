"""A user's back end: a real server in the test's own loop, that checks signatures by a library, as users do."""

import asyncio
import inspect
import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import uvicorn
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.api.conftest import InLoopServer
from tests.servers import eventually

SECRET = f"whsec_{b64encode(b'a secret of thirty-two bytes or more').decode()}"
EVERYTHING = [{"actions": ["read", "publish", "cancel", "create", "admin"]}]
ALLOW = {"allow": True, "principal": "alice", "grants": EVERYTHING}

Decide = Callable[[dict[str, Any]], Any]


class TheirBackend:
    """Records what it receives, and decides as the test says: an answer's members, or a whole response, or later."""

    stop: Callable[[], Awaitable[None]]
    """Ends it, once it serves."""

    def __init__(self) -> None:
        self.url = ""
        self.received: list[dict[str, Any]] = []
        self.unverified = 0
        self.ids: list[str] = []
        self.disconnect_statuses = [200]
        self.decide: Decide = lambda question: ALLOW
        self.gate = asyncio.Event()
        self.gate.set()
        self.now = self.most = 0
        self.connections: set[tuple[str, int]] = set()
        self.cookies: list[str] = []
        """What came as a cookie of the broker's own, which has none."""

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        try:
            question = Webhook(SECRET).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.unverified += 1
            return Response(status_code=403)
        self.ids.append(request.headers["webhook-id"])
        self.cookies += request.headers.getlist("cookie")
        self.received.append(question)
        assert request.client is not None
        self.connections.add((request.client.host, request.client.port))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        if question["action"] == "disconnect":
            statuses = self.disconnect_statuses
            return Response(status_code=statuses.pop(0) if len(statuses) > 1 else statuses[0])
        decided = self.decide(question)
        if inspect.isawaitable(decided):
            decided = await decided
        return decided if isinstance(decided, Response) else Response(orjson.dumps(decided))

    def of(self, action: str) -> list[dict[str, Any]]:
        return [question for question in self.received if question["action"] == action]

    async def heard(self, action: str, times: int = 1) -> dict[str, Any]:
        """Wait until it has received so many; return the last."""
        await eventually(lambda: len(self.of(action)) >= times, f"the back end received {times} {action}s")
        return self.of(action)[-1]

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator["TheirBackend"]:
        with socket.create_server(("127.0.0.1", port)) as listener:
            app = Starlette(routes=[Route("/hook", self.answer, methods=["POST"])])
            server = InLoopServer(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
            task = asyncio.create_task(server.serve(sockets=[listener]))
            await eventually(lambda: server.started or task.done(), "the back end serves")
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"

            async def stop() -> None:
                self.gate.set()
                server.should_exit = True
                with suppress(asyncio.CancelledError):
                    await task

            self.stop = stop
            try:
                yield self
            finally:
                await stop()
