"""One client's WebSocket: the subscriptions it carries, its send queue, and its time limits."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator

import anyio
from starlette.websockets import WebSocket, WebSocketDisconnect

from progress_broker.stream.delivery import ALL
from progress_broker.stream.subscription import Subscription
from progress_server.auth.principal import principal_of
from progress_server.auth.revocation import bind_to_principal
from progress_server.callback.connection import connection_in
from progress_server.context import Context
from progress_server.http.headers import CONNECTION_HEADER
from progress_server.http.rejections import ENDED, REPLACED, close_code
from progress_server.limits.slots import address_of
from progress_server.protocols.extensions import ABORT
from progress_server.websocket.messages import message, retry_ms
from progress_server.websocket.outlet import WRAPPED, EncodedFrames, WebSocketMember
from progress_server.websocket.send_queue import Closing, SendQueue

log = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long a client may take to receive the remaining messages before the connection is aborted."""

_OF_ONE_OPERATION = {"ended": ENDED, "gone": close_code("gone"), "not-found": close_code("not-found")}
"""Reasons that end the subscription of one operation. Their close codes are for a WebSocket of only that operation."""


class Socket:
    """A client's WebSocket. All of its subscriptions share one send queue.

    When the queue is full, all subscriptions pause. When it has room again, they catch up one after another.
    """

    def __init__(self, websocket: WebSocket, context: Context, *, single: bool) -> None:
        self.bucket = 0
        self.closing = False
        self._websocket = websocket
        self._hub, self._settings = context.hub, context.settings
        self._single = single
        self._send_queue = SendQueue(self._settings.client_buffer_bytes, self._hub.clock)
        self._members: dict[str, WebSocketMember] = {}
        self._paused: dict[
            WebSocketMember, None
        ] = {}  # members that wait for room in the queue; the one that has waited longest comes first
        self._cancel_scope = anyio.CancelScope()
        self._abort: Callable[[], None] | None = websocket.scope.get("extensions", {}).get(ABORT)
        self._lingering: asyncio.TimerHandle | None = None
        self._authorized = connection_in(websocket.scope)
        self.connection = self._hub.streams.name()
        """The connection name in log lines, for the client, and for all subscriptions of this WebSocket."""
        self.client = address_of(websocket.scope)
        """The client's address, or its network for IPv6."""
        self.holder = principal_of(websocket)
        """The authenticated caller. The WebSocket is closed when the caller's credentials are revoked."""
        self._deadline = bind_to_principal(ALL, self.holder, self._hub).deadline
        self._began_at = self._hub.clock()
        max_age_s = self._settings.stream_max_age_s * random.uniform(0.9, 1)
        self._expires_at = min(self._began_at + max_age_s, self._deadline)

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        """The current subscriptions."""
        return (member.subscription for member in self._members.values())

    @property
    def age_s(self) -> float:
        """How long it has been open."""
        return self._hub.clock() - self._began_at

    @property
    def full_since(self) -> float | None:
        """Since when its send queue has been full, by the hub's clock; None if it has room."""
        return self._send_queue.full_since

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, operation: str) -> bool:
        return operation in self._members

    # Lifecycle

    async def accept(self) -> None:
        """Accept the WebSocket.

        Pages can't read handshake headers, so the first message has the connection name too.
        """
        await self._websocket.accept(headers=[(CONNECTION_HEADER, self.connection.encode())])

    async def run(self, listen: Callable[[], Awaitable[None]]) -> None:
        """Run until the client disconnects or the WebSocket is closed.

        `listen` handles the client's messages meanwhile.
        """
        listening = asyncio.create_task(self._listening(listen))
        hub = self._hub
        hub.connections.add(self)
        hub.wheel.add(self, min(self._settings.ping_s * random.uniform(0.5, 1), self._expires_at - hub.clock()))
        self.send_text(message("open", retry_ms=retry_ms(self._settings), connection=self.connection))
        if self._authorized.first:
            self.send(WRAPPED.encode(self._authorized.first))
        self._authorized.on_replaced(self.replaced)
        if hub.draining:
            self.close("draining", reconnect=True)
        try:
            with self._cancel_scope:
                await self._send_queue.deliver(self._websocket.send, self._resume_members)
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
            log.exception(
                "internal error on WebSocket %s; it is closed", self.connection, extra={"connection": self.connection}
            )
            self.finish(close_code("internal"), "internal")
        else:
            self._cancel_scope.cancel()  # the client has disconnected

    async def opened(self) -> None:
        """Close an older connection with the same identifier: this one now has what the client asked for."""
        if not self.closing:
            await self._authorized.opened()

    async def receive(self) -> str | bytes | None:
        """Return the client's next message, or None when it has disconnected.

        While the send queue is full, nothing is received: a client that reads nothing gets no more requests handled.
        """
        await self._send_queue.room()
        received = await self._websocket.receive()
        if received["type"] == "websocket.disconnect":
            return None
        text: str | None = received.get("text")
        return received["bytes"] if text is None else text

    def send_text(self, text: str) -> None:
        """Send a message."""
        self._send_queue.put((text,), len(text))

    def close(self, reason: str, *, reconnect: bool = False) -> None:
        """Close the WebSocket.

        With `reconnect` the client is first sent the reason; it reconnects with its positions.
        """
        if reconnect and not self.closing:
            self.send_text(message("reconnect", reason=reason, retry_ms=retry_ms(self._settings)))
        self.finish(close_code(reason), reason)

    def finish(self, code: int, reason: str) -> None:
        """Close the WebSocket after the queued messages, within `LINGER_S`.

        Without that limit a client that reads nothing would keep it open forever.
        """
        if not self.closing:
            self._release(reason)
            self._send_queue.close(Closing(code, reason))
            self._lingering = asyncio.get_running_loop().call_later(LINGER_S, self.abort, reason)

    def replaced(self) -> None:
        """Close the WebSocket for good: a newer connection has replaced it, or an operator wants it to stay away."""
        if not self.closing:
            self.send_text(message("replaced"))
            self.finish(REPLACED, "replaced")

    def abort(self, reason: str) -> None:
        """Cut the connection, without sending the queued messages."""
        self._release(reason)
        if self._abort is not None:
            self._abort()
        self._cancel_scope.cancel()

    def _release(self, reason: str) -> None:
        """Close all subscriptions; a second call does nothing."""
        self.closing = True
        self._authorized.end(reason)
        members, self._members = self._members, {}
        self._paused.clear()
        for member in members.values():
            member.subscription.close(reason)

    # Subscriptions

    def attach(self, subscription: Subscription) -> None:
        """Add a subscription. It replaces one of the same operation."""
        self.detach(subscription.operation)
        member = self._members[subscription.operation] = WebSocketMember(subscription, self)
        subscription.attach(member)

    def detach(self, operation: str) -> bool:
        """Remove the subscription of an operation. Return whether there was one."""
        member = self._members.pop(operation, None)
        if member is not None:
            self._paused.pop(member, None)
            member.subscription.close("client")
        return member is not None

    def send(self, encoded: EncodedFrames) -> None:
        """Send the frames of a member. If the queue is then full, pause all members."""
        self._send_queue.put(encoded.texts, encoded.size)
        if self._send_queue.full:
            for member in tuple(self._members.values()):
                if member not in self._paused:
                    self._paused[member] = None
                    member.subscription.pause_writing()

    def left(self, member: WebSocketMember, reason: str) -> None:
        """Remove a member whose subscription has ended.

        If only its operation has ended, the WebSocket stays open. Any other reason closes the WebSocket.
        """
        if self._members.get(member.operation) is not member:
            return  # it was detached by us
        del self._members[member.operation]
        self._paused.pop(member, None)
        if reason in _OF_ONE_OPERATION:
            self.unsubscribed(member.operation, reason)
        else:
            self.close(reason, reconnect=True)

    def unsubscribed(self, operation: str, reason: str, ref: object = None) -> None:
        """Notify the client that no more events of an operation will come, and why."""
        self.send_text(message("unsubscribed", operation=operation, reason=reason, ref=ref))
        if self._single:
            self.finish(_OF_ONE_OPERATION[reason], reason)

    def _resume_members(self) -> None:
        """Resume waiting members, one after another, until the queue is full again."""
        for member in tuple(self._paused):
            if self._send_queue.full:
                return
            if member in self._paused:  # resuming another may have removed it
                del self._paused[member]
                member.subscription.resume_writing()

    # Called by the timer wheel

    def tick(self, now: float) -> float | None:
        """Send a ping, or close the WebSocket if it is too old or its client reads nothing.

        Return the seconds until the next tick, or None if it is closing.
        """
        full_since = self.full_since
        if now >= self._expires_at:
            self.close("expired" if now >= self._deadline else "max-age", reconnect=True)
        elif full_since is None:
            self.send_text(message("ping"))
        elif now - full_since >= self._settings.stuck_timeout_s:
            self.abort("stuck")
        return None if self.closing else min(self._settings.ping_s, self._expires_at - now)
