"""A socket: one client's WebSocket, the subscriptions it carries, and what bounds it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from progress_broker.stream.delivery import ALL
from progress_broker.stream.subscription import Subscription
from progress_server.auth.principal import principal_of
from progress_server.auth.revocation import held
from progress_server.callback.connection import visit_in
from progress_server.context import Context
from progress_server.http.headers import CONNECTION_HEADER
from progress_server.http.refusals import ENDED, REPLACED, close_code
from progress_server.protocols.extensions import ABORT
from progress_server.websocket.messages import message, retry_ms
from progress_server.websocket.outlet import WRAPPED, Member, Said
from progress_server.websocket.send_queue import Closing, Outbox

log = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long a client may take to take the rest of what it is sent, once its socket is to end."""

_OF_ONE_OPERATION = {"ended": ENDED, "gone": close_code("gone"), "not-found": close_code("not-found")}
"""Ends that concern an operation, and the close codes of sockets that follow only that one."""


class Socket:
    """What is sent goes through one outbox: when that is full, all that it carries stop, and catch up in turn."""

    def __init__(self, websocket: WebSocket, context: Context, *, single: bool) -> None:
        self.bucket = 0
        self.closing = False
        self._websocket = websocket
        self._hub, self._settings = context.hub, context.settings
        self._single = single
        self._outbox = Outbox(self._settings.client_buffer_bytes, self._hub.clock)
        self._members: dict[str, Member] = {}
        self._waiting: dict[Member, None] = {}  # for room, the longest first
        self._cut = anyio.CancelScope()
        self._abort: Callable[[], None] | None = websocket.scope.get("extensions", {}).get(ABORT)
        self._lingering: asyncio.TimerHandle | None = None
        self._visit = visit_in(websocket.scope)
        self.connection = self._hub.streams.name()
        """What log lines and its client call it, and all that it carries."""
        self.holder = principal_of(websocket)
        """Whose it is; when their proof is withdrawn it is closed."""
        self._deadline = held(ALL, self.holder, self._hub).deadline
        max_age_s = self._settings.stream_max_age_s * random.uniform(0.9, 1)
        self._expires_at = min(self._hub.clock() + max_age_s, self._deadline)

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        """Those that it carries now."""
        return (member.subscription for member in self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, operation: str) -> bool:
        return operation in self._members

    # Its life

    async def accept(self) -> None:
        """Open it. Pages can't see the handshake's headers, so the first message tells its name, too."""
        await self._websocket.accept(headers=[(CONNECTION_HEADER, self.connection.encode())])

    async def run(self, listen: Callable[[], Awaitable[None]]) -> None:
        """Live until the client leaves or is sent away; `listen` hears what it asks, for as long as it is there."""
        listening = asyncio.create_task(self._listening(listen))
        hub = self._hub
        hub.connections.add(self)
        hub.wheel.add(self, min(self._settings.ping_s * random.uniform(0.5, 1), self._expires_at - hub.clock()))
        self.say(message("open", retry_ms=retry_ms(self._settings), connection=self.connection))
        if self._visit.first:
            self.carry(WRAPPED.encode(self._visit.first))
        self._visit.last_until(self._replaced)
        if hub.draining:
            self.close("draining", reconnect=True)
        try:
            with self._cut:
                await self._outbox.deliver(self._websocket.send, self._drained)
        except WebSocketDisconnect:
            pass
        finally:
            listening.cancel()
            if self._lingering is not None:
                self._lingering.cancel()
            hub.wheel.remove(self)
            hub.connections.discard(self)
            self._release("client")
            await asyncio.wait([listening], timeout=LINGER_S)

    async def _listening(self, listen: Callable[[], Awaitable[None]]) -> None:
        try:
            await listen()
        except Exception:
            log.exception("socket %s broke; it is closed", self.connection, extra={"connection": self.connection})
            self.finish(close_code("internal"), "internal")
        else:
            self._cut.cancel()  # the client has gone

    async def opened(self) -> None:
        """Make an older connection of the same identifier give way: what the client came for is there."""
        if not self.closing:
            await self._visit.opened()

    async def receive(self) -> str | bytes | None:
        """Return the client's next message; None when it has gone. One that takes nothing is not heard."""
        await self._outbox.room()
        received = await self._websocket.receive()
        if received["type"] == "websocket.disconnect":
            return None
        text: str | None = received.get("text")
        return received["bytes"] if text is None else text

    def say(self, text: str) -> None:
        """Send a message."""
        self._outbox.put((text,), len(text))

    def close(self, reason: str, *, reconnect: bool = False) -> None:
        """End it. With `reconnect` the client is told why, and comes back with its positions."""
        if reconnect and not self.closing:
            self.say(message("reconnect", reason=reason, retry_ms=retry_ms(self._settings)))
        self.finish(close_code(reason), reason)

    def finish(self, code: int, reason: str) -> None:
        """End it after what was written, and soon: a client that takes nothing would keep it for ever."""
        if not self.closing:
            self._release(reason)
            self._outbox.close(Closing(code, reason))
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self.abort, reason)

    def _replaced(self) -> None:
        """End it for good, as a newer one has come."""
        if not self.closing:
            self.say(message("replaced"))
            self.finish(REPLACED, "replaced")

    def abort(self, reason: str) -> None:
        """Cut the connection."""
        self._release(reason)
        if self._abort is not None:
            self._abort()
        self._cut.cancel()

    def _release(self, reason: str) -> None:
        """Let go of all that it carries, once."""
        self.closing = True
        self._visit.end(reason)
        members, self._members = self._members, {}
        self._waiting.clear()
        for member in members.values():
            member.subscription.close(reason)

    # What it carries

    def attach(self, subscription: Subscription) -> None:
        """Carry a subscription, instead of one of the same operation."""
        self.detach(subscription.operation)
        member = self._members[subscription.operation] = Member(subscription, self)
        subscription.attach(member)

    def detach(self, operation: str) -> bool:
        """Carry an operation's no more; return whether it did."""
        member = self._members.pop(operation, None)
        if member is not None:
            self._waiting.pop(member, None)
            member.subscription.close("client")
        return member is not None

    def carry(self, said: Said) -> None:
        """Send what a member is sent; when there is no more room, all have to stop."""
        self._outbox.put(said.texts, said.size)
        if self._outbox.full:
            for member in tuple(self._members.values()):
                if member not in self._waiting:
                    self._waiting[member] = None
                    member.subscription.filled()

    def left(self, member: Member, why: str) -> None:
        """Go on without a member that was told all of its operation; what ends it otherwise ends the socket."""
        if self._members.get(member.operation) is not member:
            return  # we let go of it
        del self._members[member.operation]
        self._waiting.pop(member, None)
        if why in _OF_ONE_OPERATION:
            self.told_all(member.operation, why)
        else:
            self.close(why, reconnect=True)

    def told_all(self, operation: str, why: str, ref: object = None) -> None:
        """Tell that nothing more of an operation will come, and why."""
        self.say(message("unsubscribed", operation=operation, reason=why, ref=ref))
        if self._single:
            self.finish(_OF_ONE_OPERATION[why], why)

    def _drained(self) -> None:
        """Let those go on who wait for room, in turn, until there is none."""
        for member in tuple(self._waiting):
            if self._outbox.full:
                return
            if member in self._waiting:  # it may have left meanwhile
                del self._waiting[member]
                member.subscription.drained()

    # What the wheel calls

    def tick(self, now: float) -> float | None:
        """Ping; end it when it is too old, or when its client takes nothing. Return when to tick next."""
        full_since = self._outbox.full_since
        if now >= self._expires_at:
            self.close("expired" if now >= self._deadline else "max-age", reconnect=True)
        elif full_since is None:
            self.say(message("ping"))
        elif now - full_since >= self._settings.stuck_timeout_s:
            self.abort("stuck")
        return None if self.closing else min(self._settings.ping_s, self._expires_at - now)
