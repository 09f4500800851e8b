"""`PROGRESS_AUTH=callback`: the user's own back end decides who may open connections and call."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.access.takeover import REPLACED, Takeover
from progress_broker.errors import Draining, StorageUnavailable
from progress_broker.model.event import Event
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.auth.guard import ClientDisconnect
from progress_server.auth.principal import Principal
from progress_server.callback.client import AuthorizerClient
from progress_server.callback.connection import AuthorizedConnection
from progress_server.callback.decision import Decision
from progress_server.callback.decision_cache import DecisionCache
from progress_server.callback.disconnect_events import DisconnectEvents
from progress_server.callback.disconnect_watcher import disconnect_watcher_in
from progress_server.callback.payloads import Caller, ConnectRequest, caller_in, connect_request_in
from progress_server.context import context_of
from progress_server.limits.admission import PerAddressRate
from progress_server.limits.slots import address_of


class CallbackAuthenticator:
    """Asks for each connection whether it may be opened; and for plain calls who calls, once in a few seconds."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self._backend = AuthorizerClient(settings, tally)
        self._farewells = DisconnectEvents(self._backend.notify, tally)
        self._verdicts = DecisionCache(settings.callback_cache_s)
        self._newest: Takeover | None = None
        self._friends, self._token_cookie = settings.cors_origins, settings.jwt_cookie
        self.threshold = PerAddressRate(settings.callback_requests_per_s, tally)

    @asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[dict[bytes, Callable[[Event], None]]]:
        """Run the background tasks, and return the handlers of notes in the feeds.

        Leave it after the streams have ended: it then tells the back end of those.
        """
        async with self._backend, self._farewells, Takeover(store) as newest:
            self._newest = newest
            yield {REPLACED: newest.received}

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal that the back end names; a connection to be opened has its visit then."""
        who, opening = self._who(connection), connect_request_in(connection.scope)
        if opening is None:
            presence = disconnect_watcher_in(connection.scope)
            return await self._verdicts.get(
                who.key(), lambda: self._called(who, connection.scope), lambda: presence.left
            )
        answer = await self._opens(connection, who.opens(opening))
        return await self._let_in(connection, opening, answer, answer.principal_of())

    async def admit(self, connection: HTTPConnection, principal: Principal) -> Principal:
        """Return the principal of a ticket, if the back end allows it. It can make the ticket expire earlier."""
        opening = connect_request_in(connection.scope)
        if opening is None:
            return principal
        question = self._who(connection, principal.name).opens(opening)
        answer = await self._opens(connection, question)
        ends = [it for it in (principal.expires_at, answer.principal_of().expires_at) if it is not None]
        within = dataclasses.replace(principal, expires_at=min(ends, default=None))
        return await self._let_in(connection, opening, answer, within)

    async def _let_in(
        self, connection: HTTPConnection, opening: ConnectRequest, answer: Decision, principal: Principal
    ) -> Principal:
        opening = dataclasses.replace(opening, principal=principal.name)
        visit = AuthorizedConnection(
            opening.connection, lambda reason, lasted_s: self._ended(opening, reason, lasted_s)
        )
        visit.first = tuple(event.frame() for event in answer.events)
        visit.attach_to(connection.scope)
        if disconnect_watcher_in(connection.scope).left:  # it must not replace a connection whose client is there
            visit.end("client")
            raise ClientDisconnect
        if answer.identifier is not None:
            # Each principal has identifiers of its own: nobody can replace another's connection by guessing one.
            identifier = f"{principal.name}\0{answer.identifier}"
            visit.claim = partial(self._running().claim, identifier, visit.connection, visit.replaced)
        return principal

    def _who(self, connection: HTTPConnection, principal: str | None = None) -> Caller:
        return caller_in(connection, self._friends, principal, self._token_cookie)

    async def _opens(self, connection: HTTPConnection, question: bytes) -> Decision:
        hub = context_of(connection).hub
        if hub.draining:  # all are rejected, whatever the back end would answer
            hub.tally.rejected[Draining.code] += 1
            raise Draining
        return await self._asked("connect", question, connection.scope)

    async def _called(self, who: Caller, scope: Scope) -> Principal:
        self.threshold.check(address_of(scope))  # a connection to be opened was counted by the middleware
        return (await self._asked("call", who.calls(), scope)).principal_of()

    async def _asked(self, action: str, question: bytes, scope: Scope) -> Decision:
        async with disconnect_watcher_in(scope).watched() as presence:
            return await self._backend.ask(action, question, address_of(scope), presence.run_while_connected)

    def _ended(self, opening: ConnectRequest, reason: str, lasted_s: float) -> None:
        self._running().release(opening.connection)
        self._farewells.enqueue(opening.ended(reason, lasted_s))

    def _running(self) -> Takeover:
        if self._newest is None:
            raise StorageUnavailable("this server is starting: retry in a moment")
        return self._newest
