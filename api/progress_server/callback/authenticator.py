"""`PROGRESS_AUTH=callback`: the user's own back end decides who may open connections and call."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.access.takeover import REPLACED, Newest
from progress_broker.errors import Draining, StorageUnavailable
from progress_broker.model.event import Event
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.auth.guard import ClientLeft
from progress_server.auth.principal import Principal
from progress_server.callback.client import Backend
from progress_server.callback.connection import Visit
from progress_server.callback.decision import Answer
from progress_server.callback.decision_cache import Verdicts
from progress_server.callback.disconnect_events import Farewells
from progress_server.callback.disconnect_watcher import presence_in
from progress_server.callback.payloads import Opening, Who, opening_in, who_in
from progress_server.context import context_of
from progress_server.limits.admission import Threshold
from progress_server.limits.slots import address_of


class Callback:
    """Asks for each connection whether it may be opened; and for plain calls who calls, once in a few seconds."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self._backend = Backend(settings, tally)
        self._farewells = Farewells(self._backend.tell, tally)
        self._verdicts = Verdicts(settings.callback_cache_s)
        self._newest: Newest | None = None
        self._friends, self._token_cookie = settings.cors_origins, settings.jwt_cookie
        self.threshold = Threshold(settings.callback_questions_per_s, tally)

    @asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[dict[bytes, Callable[[Event], None]]]:
        """Run the background tasks, and return the handlers of notes in the feeds.

        Leave it after the streams have ended: it then tells the back end of those.
        """
        async with self._backend, self._farewells, Newest(store) as newest:
            self._newest = newest
            yield {REPLACED: newest.heard}

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal that the back end names; a connection to be opened has its visit then."""
        who, opening = self._who(connection), opening_in(connection.scope)
        if opening is None:
            presence = presence_in(connection.scope)
            return await self._verdicts.of(
                who.key(), lambda: self._called(who, connection.scope), lambda: presence.left
            )
        answer = await self._opens(connection, who.opens(opening))
        return await self._let_in(connection, opening, answer, answer.whom())

    async def admit(self, connection: HTTPConnection, principal: Principal) -> Principal:
        """Return the principal of a ticket, if the back end allows it. It can make the ticket expire earlier."""
        opening = opening_in(connection.scope)
        if opening is None:
            return principal
        question = self._who(connection, principal.name).opens(opening)
        answer = await self._opens(connection, question)
        ends = [it for it in (principal.expires_at, answer.whom().expires_at) if it is not None]
        within = dataclasses.replace(principal, expires_at=min(ends, default=None))
        return await self._let_in(connection, opening, answer, within)

    async def _let_in(
        self, connection: HTTPConnection, opening: Opening, answer: Answer, principal: Principal
    ) -> Principal:
        opening = dataclasses.replace(opening, principal=principal.name)
        visit = Visit(opening.connection, lambda reason, lasted_s: self._ended(opening, reason, lasted_s))
        visit.first = tuple(event.frame() for event in answer.events)
        visit.enter(connection.scope)
        if presence_in(connection.scope).left:  # it must not replace a connection whose client is there
            visit.end("client")
            raise ClientLeft
        if answer.identifier is not None:
            # Each principal has identifiers of its own: nobody can replace another's connection by guessing one.
            identifier = f"{principal.name}\0{answer.identifier}"
            visit.claim = partial(self._running().come, identifier, visit.connection, visit.replaced)
        return principal

    def _who(self, connection: HTTPConnection, principal: str | None = None) -> Who:
        return who_in(connection, self._friends, principal, self._token_cookie)

    async def _opens(self, connection: HTTPConnection, question: bytes) -> Answer:
        hub = context_of(connection).hub
        if hub.draining:  # all are refused, whatever the back end would answer
            hub.tally.refused[Draining.code] += 1
            raise Draining
        return await self._asked("connect", question, connection.scope)

    async def _called(self, who: Who, scope: Scope) -> Principal:
        self.threshold.step_over(address_of(scope))  # a connection to be opened was counted by the middleware
        return (await self._asked("call", who.calls(), scope)).whom()

    async def _asked(self, action: str, question: bytes, scope: Scope) -> Answer:
        async with presence_in(scope).watched() as presence:
            return await self._backend.ask(action, question, address_of(scope), presence.while_here)

    def _ended(self, opening: Opening, reason: str, lasted_s: float) -> None:
        self._running().leave(opening.connection)
        self._farewells.say(opening.ended(reason, lasted_s))

    def _running(self) -> Newest:
        if self._newest is None:
            raise StorageUnavailable("this server is starting: retry in a moment")
        return self._newest
