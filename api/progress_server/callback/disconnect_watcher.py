"""Detects that a client disconnects while the back end is asked about it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.types import Message, Receive, Scope

from progress_server.auth.guard import ClientDisconnect

T = TypeVar("T")

_STATE = "disconnect_watcher"
"""The key among the `state` of a connection's scope."""
_ENDS = ("http.disconnect", "websocket.disconnect")


class DisconnectWatcher:
    """Watches one client. It keeps the messages that arrive meanwhile: the app must get them from `receive`."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._received: list[Message] = []
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    def watchable(cls, scope: Scope) -> bool:
        """Return whether a disconnect can be detected. It can't if the request has a body, which would be read
        first."""
        return scope["type"] == "websocket" or scope["method"] in ("GET", "HEAD")

    def enter(self, scope: Scope) -> None:
        """Store this watcher in the scope of a connection."""
        scope.setdefault("state", {})[_STATE] = self

    @property
    def left(self) -> bool:
        """Whether the client has disconnected."""
        return bool(self._received) and self._received[-1]["type"] in _ENDS

    async def receive(self) -> Message:
        """Return the next message of the client."""
        return self._received.pop(0) if self._received else await self._receive()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["DisconnectWatcher"]:
        """Watch within the block whether the client disconnects."""
        listening = self._listening = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            self._listening = None
            listening.cancel()
            await asyncio.wait((listening,))  # or it could take a message that is for the app

    async def run_while_connected(self, waiting: Awaitable[T]) -> T:
        """Return the result of `waiting`; raise `ClientDisconnect` if the watched client disconnects earlier."""
        wanted = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait((wanted, *filter(None, (self._listening,))), return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                raise ClientDisconnect
            return wanted.result()
        finally:
            wanted.cancel()

    async def _listen(self) -> None:
        while not self.left:
            if self._received and _may_go_on(self._received[-1]):  # the rest may be long, and is not wanted here
                await asyncio.Event().wait()
            self._received.append(await self._receive())


def _may_go_on(message: Message) -> bool:
    """Return whether more than a disconnect may follow: the rest of a body, or messages of a WebSocket."""
    return message["type"] == "websocket.receive" or bool(message.get("more_body"))


async def _silence() -> Message:
    await asyncio.Event().wait()
    return {}


def disconnect_watcher_in(scope: Scope) -> DisconnectWatcher:
    """Return the watcher of a connection. Without one, return a watcher that never reports a disconnect."""
    found: DisconnectWatcher | None = scope.get("state", {}).get(_STATE)
    return found or DisconnectWatcher(_silence)
