"""The guard: all the ways to prove who one is, tried in one place."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection

from progress_broker.access.shared_secret import SharedSecret
from progress_broker.errors import SetupError, StorageUnavailable, Unauthenticated
from progress_broker.hub import Hub
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_server.auth.api_keys import PREFIX, ApiKeys, read_keys
from progress_server.auth.credentials import bearer
from progress_server.auth.cursors import Seal
from progress_server.auth.jwt import jwt_bearer
from progress_server.auth.principal import ANYONE, Principal
from progress_server.auth.revocation import Revocation
from progress_server.auth.tickets import Tickets


class ClientLeft(Exception):
    """Nobody is there any more to be answered."""


class Authenticator(Protocol):
    """Tells who speaks in a connection."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return who speaks; raise `Unauthenticated`, whose text is for the log alone, or `ClientLeft`."""
        ...


class Open:
    """Takes everybody: for one machine, or where something in front keeps strangers out."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the one who may do all."""
        return ANYONE


Admit = Callable[[HTTPConnection, Principal], Awaitable[Principal]]
"""Has a say in what a ticket opens: returns who speaks in it, or raises `Unauthenticated`."""


class Guard:
    """Tells who speaks in a connection. An app makes it; it works once it is `over` a store."""

    def __init__(
        self, settings: Settings, authenticator: Authenticator | None = None, admit: Admit | None = None
    ) -> None:
        self._settings = settings
        self._admit = admit
        self._authenticator = authenticator or authenticator_of(settings)
        self._open = isinstance(self._authenticator, Open)
        self._keys = read_keys(settings.api_keys) if settings.api_keys is not None else ApiKeys([])
        self._secret: SharedSecret | None = None
        self.revocation = Revocation(settings.denials_s)
        self.tickets = Tickets(self._ticket_secret, settings.ticket_s)

    @asynccontextmanager
    async def over(self, store: Store, hub: Hub) -> AsyncIterator[None]:
        """Share tickets and revocations with the other replicas of a store, and end the streams of who is denied."""
        self._secret = SharedSecret(store)
        if self._open:
            yield
            return
        async with self.revocation.over(store, hub):
            yield

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return who speaks; raise `Unauthenticated`, or `StorageUnavailable` where that can't be known now."""
        if self._open:
            return ANYONE
        principal = await self._proved(connection)
        if self.revocation.denies(principal):
            raise Unauthenticated("it was revoked")
        return principal

    async def _proved(self, connection: HTTPConnection) -> Principal:
        query = connection.scope["query_string"]
        given = parse_qs(query.decode("latin-1")) if b"ticket=" in query or b"token=" in query else {}
        if "ticket" in given:
            principal = await self.tickets.take(connection, given["ticket"][0])
            return principal if self._admit is None else await self._admit(connection, principal)
        if given.keys() & {"token", "access_token"}:  # in logs and histories for as long as it lives
            raise Unauthenticated("there is a token in the URL, where only a ticket may stand")
        token = bearer(connection)
        if token is not None and token.startswith(PREFIX):
            return self._keys.verify(token)
        return await self._authenticator.authenticate(connection)

    async def seal(self) -> Seal:
        """Return what hides from callers what they carry for us."""
        return Seal(await self._ticket_secret())

    async def _ticket_secret(self) -> bytes:
        given = self._settings.ticket_secret
        if given is not None:
            return given.get_secret_value().encode()
        if self._secret is None:
            raise StorageUnavailable("this server is starting: come back in a moment")
        return await self._secret.get()


class NoTokens:
    """Takes none: only workers with API keys may call."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Raise `Unauthenticated`."""
        raise Unauthenticated("there is no API key")


def authenticator_of(settings: Settings) -> Authenticator:
    """Return how callers prove who they are; raise `SetupError` where the settings give nothing to prove it by."""
    if settings.auth == "none":
        for name, auth in (("api_keys", "jwt"), ("jwt_key", "jwt"), ("jwt_jwks", "jwt"), ("callback_url", "callback")):
            if getattr(settings, name) is not None:
                keeps = f"PROGRESS_{name.upper()} keeps nobody out while PROGRESS_AUTH is none"
                raise SetupError(f"{keeps}: set that to {auth}, or leave this out")
        return Open()
    tokens = jwt_bearer(settings)
    if tokens is None and settings.api_keys is None:
        raise SetupError(
            "PROGRESS_AUTH=jwt needs something to check tokens with:"
            " set PROGRESS_JWT_KEY or PROGRESS_JWT_JWKS, or PROGRESS_API_KEYS for workers alone"
        )
    return tokens or NoTokens()


def guard_of(connection: HTTPConnection) -> Guard:
    """Return the guard of the app that a request, or a WebSocket, is for."""
    guard: Guard = connection.app.state.guard
    return guard
