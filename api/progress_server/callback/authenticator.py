"""`PROGRESS_AUTH=callback`: the user's own back end decides which callers may open connections and send requests."""

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
    """Asks the back end about each new connection; and about ordinary requests, with cached answers."""

    def __init__(self, settings: Settings, tally: Tally) -> None:
        self._backend = AuthorizerClient(settings, tally)
        self._disconnect_events = DisconnectEvents(self._backend.notify, tally)
        self._decisions = DecisionCache(settings.callback_cache_s)
        self._takeover: Takeover | None = None
        self._trusted_origins, self._token_cookie = settings.cors_origins, settings.jwt_cookie
        self.address_rate = PerAddressRate(settings.callback_requests_per_s, tally)

    @asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[dict[bytes, Callable[[Event], None]]]:
        """Run the background tasks, and return the handlers of internal entries in the feeds.

        Exit it after the streams have ended: on exit it notifies the back end of them.
        """
        async with self._backend, self._disconnect_events, Takeover(store) as takeover:
            self._takeover = takeover
            yield {REPLACED: takeover.received}

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal that the back end names; raise `Unauthenticated` if the back end rejects the caller.

        A connection that is to be opened also gets its `AuthorizedConnection`.
        """
        caller, request = self._caller(connection), connect_request_in(connection.scope)
        if request is None:
            watcher = disconnect_watcher_in(connection.scope)
            return await self._decisions.get(
                caller.key(), lambda: self._ask_who_calls(caller, connection.scope), lambda: watcher.left
            )
        decision = await self._ask_to_connect(connection, caller.opens(request))
        return await self._let_in(connection, request, decision, decision.principal_of())

    async def admit(self, connection: HTTPConnection, principal: Principal) -> Principal:
        """Ask the back end whether to admit a connection whose ticket has named `principal`.

        Return the principal to use: the back end can make it expire earlier. Raise `Unauthenticated` if the back end
        rejects the connection.
        """
        request = connect_request_in(connection.scope)
        if request is None:
            return principal
        body = self._caller(connection, principal.name).opens(request)
        decision = await self._ask_to_connect(connection, body)
        ends = [it for it in (principal.expires_at, decision.principal_of().expires_at) if it is not None]
        within = dataclasses.replace(principal, expires_at=min(ends, default=None))
        return await self._let_in(connection, request, decision, within)

    async def _let_in(
        self, connection: HTTPConnection, request: ConnectRequest, decision: Decision, principal: Principal
    ) -> Principal:
        request = dataclasses.replace(request, principal=principal.name)
        authorized = AuthorizedConnection(
            request.connection, lambda reason, lasted_s: self._ended(request, reason, lasted_s)
        )
        authorized.first = tuple(event.frame() for event in decision.events)
        authorized.attach_to(connection.scope)
        if disconnect_watcher_in(connection.scope).left:  # it must not replace a connection whose client is connected
            authorized.end("client")
            raise ClientDisconnect
        if decision.identifier is not None:
            # Each principal has identifiers of its own: nobody can replace another's connection by guessing one.
            identifier = f"{principal.name}\0{decision.identifier}"
            authorized.claim = partial(self._running().claim, identifier, authorized.connection, authorized.replaced)
        return principal

    def _caller(self, connection: HTTPConnection, principal: str | None = None) -> Caller:
        return caller_in(connection, self._trusted_origins, principal, self._token_cookie)

    async def _ask_to_connect(self, connection: HTTPConnection, body: bytes) -> Decision:
        hub = context_of(connection).hub
        if hub.draining:  # all are rejected, whatever the back end would answer
            hub.tally.rejected[Draining.code] += 1
            raise Draining
        return await self._ask("connect", body, connection.scope)

    async def _ask_who_calls(self, caller: Caller, scope: Scope) -> Principal:
        self.address_rate.check(address_of(scope))  # a connection to be opened was counted by the middleware
        return (await self._ask("call", caller.calls(), scope)).principal_of()

    async def _ask(self, action: str, body: bytes, scope: Scope) -> Decision:
        async with disconnect_watcher_in(scope).watched() as watcher:
            return await self._backend.ask(action, body, address_of(scope), watcher.run_while_connected)

    def _ended(self, request: ConnectRequest, reason: str, lasted_s: float) -> None:
        self._running().release(request.connection)
        self._disconnect_events.enqueue(request.ended(reason, lasted_s))

    def _running(self) -> Takeover:
        if self._takeover is None:
            raise StorageUnavailable("this server is still starting: retry in a moment")
        return self._takeover
