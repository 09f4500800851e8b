"""Presence: whether a client is still there, while it is found out who it is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.types import Message, Receive, Scope

from progress_server.auth.guard import ClientLeft

T = TypeVar("T")

_STATE = "presence"
"""The key among the `state` of a connection's scope."""
_ENDS = ("http.disconnect", "websocket.disconnect")


class Presence:
    """That of one client. What it says meanwhile is kept for who receives next, so all have to `receive` here."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._heard: list[Message] = []
        self._leaving: asyncio.Task[None] | None = None

    @classmethod
    def watchable(cls, scope: Scope) -> bool:
        """Return whether it can be known: who listens for the end of a body takes the body first."""
        return scope["type"] == "websocket" or scope["method"] in ("GET", "HEAD")

    def enter(self, scope: Scope) -> None:
        """Be that of a connection."""
        scope.setdefault("state", {})[_STATE] = self

    @property
    def left(self) -> bool:
        """Whether it was seen to leave."""
        return bool(self._heard) and self._heard[-1]["type"] in _ENDS

    async def receive(self) -> Message:
        """Return what the client says next."""
        return self._heard.pop(0) if self._heard else await self._receive()

    @asynccontextmanager
    async def watched(self) -> AsyncIterator["Presence"]:
        """Look whether it leaves."""
        leaving = self._leaving = asyncio.create_task(self._listen())
        try:
            yield self
        finally:
            self._leaving = None
            leaving.cancel()
            await asyncio.wait((leaving,))  # or it could take what is for somebody else

    async def while_here(self, waiting: Awaitable[T]) -> T:
        """Return what is waited for; raise `ClientLeft` if the client, which is watched, leaves before."""
        wanted = asyncio.ensure_future(waiting)
        try:
            await asyncio.wait((wanted, *filter(None, (self._leaving,))), return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                raise ClientLeft
            return wanted.result()
        finally:
            wanted.cancel()

    async def _listen(self) -> None:
        while not self.left:
            if self._heard and _may_go_on(self._heard[-1]):  # at length, and only its end was of interest
                await asyncio.Event().wait()
            self._heard.append(await self._receive())


def _may_go_on(said: Message) -> bool:
    """Return whether more may follow than the end: of a body, or of what a WebSocket says before it is accepted."""
    return said["type"] == "websocket.receive" or bool(said.get("more_body"))


async def _silence() -> Message:
    await asyncio.Event().wait()
    return {}


def presence_in(scope: Scope) -> Presence:
    """Return that of a connection's client; one that nobody looks after is taken to stay."""
    found: Presence | None = scope.get("state", {}).get(_STATE)
    return found or Presence(_silence)
