"""The guard: checks credentials of every kind, in one place."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection

from progress_broker.access.shared_secret import SharedSecret
from progress_broker.errors import SetupError, StorageUnavailable, Unauthenticated
from progress_broker.hub import Hub
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.storage.versioned import Copy
from progress_server.auth.api_keys import PREFIX, ApiKeys, read_keys
from progress_server.auth.credentials import bearer
from progress_server.auth.cursors import CursorCipher
from progress_server.auth.jwt import jwt_bearer
from progress_server.auth.principal import ANONYMOUS, Principal
from progress_server.auth.revocation import RevocationCheck
from progress_server.auth.tickets import Tickets


class ClientDisconnect(Exception):
    """The client disconnected before it got a response."""


class Authenticator(Protocol):
    """Finds the principal of a connection."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal. Raise `Unauthenticated` for invalid credentials (its text is only logged, never sent),
        or `ClientDisconnect`."""
        ...


class Anonymous:
    """Accepts every caller: for use on one machine, or behind a proxy that authenticates."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal that may do everything; no credentials are checked."""
        return ANONYMOUS


class RejectedByApp(Exception):
    """The app that this server is mounted in answers a caller with an error of its own."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str]) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


Admit = Callable[[HTTPConnection, Principal], Awaitable[Principal]]
"""Decides about a connection that comes with a ticket: returns its principal, or raises `Unauthenticated`."""


class Guard:
    """Finds the principal of each connection. Tickets and revocations work only within `running`.

    If `app_decides`, the authenticator is code of an app, which may use any credentials: all but tickets and API keys
    are left to it.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator | None = None,
        admit: Admit | None = None,
        *,
        app_decides: bool = False,
    ) -> None:
        self._settings = settings
        self._admit, self._app_decides = admit, app_decides
        self._is_ours = authenticator is None
        """Whether the authenticator is made of the settings."""
        self._authenticator = authenticator or authenticator_of(settings)
        self.everyone = ANONYMOUS if isinstance(self._authenticator, Anonymous) else None
        """The principal of all callers, if no credentials are required."""
        self._keys = _keys_of(settings)
        self._secret: SharedSecret | None = None
        self.revocation = RevocationCheck(settings.revocation_check_s)
        self.tickets = Tickets(self._ticket_secret, settings.ticket_ttl_s)

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Check new keys of tokens and of workers, and return what takes them. Raises `SetupError`.

        Open streams keep their principal and its grants: revoke those of callers that are to lose them.
        """
        keys, authenticator = _keys_of(settings), self._authenticator
        if self._is_ours and not _same_key_set(self._settings, settings):
            authenticator = authenticator_of(settings)

        def take() -> None:
            self._keys, self._authenticator, self._settings = keys, authenticator, settings

        return take

    @asynccontextmanager
    async def running(self, store: Store, hub: Hub, *others: Copy) -> AsyncIterator[None]:
        """Share tickets and revocations with the other replicas of a store, and end streams of revoked principals.

        `others` are copies about principals, too, which are read together with the revocations.
        """
        self._secret = SharedSecret(store)
        if self.everyone is not None:
            yield
            return
        async with self.revocation.running(store, hub, *others):
            yield

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the principal. Raise `Unauthenticated` for invalid or revoked credentials, or `StorageUnavailable` if
        they can't be checked now."""
        if self.everyone is not None:
            return self.everyone
        principal = await self._authenticated(connection)
        if self.revocation.is_revoked(principal):
            raise Unauthenticated("the credentials are revoked")
        return principal

    async def _authenticated(self, connection: HTTPConnection) -> Principal:
        query = connection.scope["query_string"]
        given = parse_qs(query.decode("latin-1")) if b"ticket=" in query or b"token=" in query else {}
        if "ticket" in given:
            principal = await self.tickets.verify(connection, given["ticket"][0])
            return principal if self._admit is None else await self._admit(connection, principal)
        if self._app_decides:
            token = connection.headers.get("authorization", "").removeprefix("Bearer ")
        elif given.keys() & {"token", "access_token"}:  # URLs are stored in logs, and a token is valid for long
            raise Unauthenticated("the URL contains an access token, but only tickets are accepted in URLs")
        else:
            token = bearer(connection) or ""
        if token.startswith(PREFIX):
            return self._keys.verify(token)
        return await self._authenticator.authenticate(connection)

    async def cursor_cipher(self) -> CursorCipher:
        """Return the cipher of cursors, which uses the secret of the tickets."""
        return CursorCipher(await self._ticket_secret())

    async def _ticket_secret(self) -> bytes:
        given = self._settings.ticket_secret
        if given is not None:
            return given.get_secret_value().encode()
        if self._secret is None:
            raise StorageUnavailable("this server is still starting: retry in a moment")
        return await self._secret.get()


class ApiKeysOnly:
    """Accepts no tokens: only workers with API keys may call."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Reject the connection with `Unauthenticated`: it has no API key, and no other credentials are accepted."""
        raise Unauthenticated("the request has no API key, and this server accepts no other credentials")


def _keys_of(settings: Settings) -> ApiKeys:
    return read_keys(settings.api_keys) if settings.api_keys is not None else ApiKeys([])


def _same_key_set(before: Settings, after: Settings) -> bool:
    """Whether both name the same key set at a URL. It is refreshed by itself, and its keys are known: a new one would
    know none while its server is away."""
    names = [name for name in Settings.model_fields if name.startswith("jwt_")]
    is_url = (after.jwt_jwks or "").lower().startswith(("http:", "https:"))
    return is_url and all(getattr(before, name) == getattr(after, name) for name in names)


def authenticator_of(settings: Settings) -> Authenticator:
    """Return the authenticator that the settings select; raise `SetupError` if settings are missing or useless."""
    if settings.auth == "none":
        for name, auth in (("api_keys", "jwt"), ("jwt_key", "jwt"), ("jwt_jwks", "jwt"), ("callback_url", "callback")):
            if getattr(settings, name) is not None:
                variable = f"PROGRESS_{name.upper()}"
                raise SetupError(
                    f"{variable} has no effect while PROGRESS_AUTH is none:"
                    f" set PROGRESS_AUTH={auth}, or remove {variable}"
                )
        return Anonymous()
    tokens = jwt_bearer(settings)
    if tokens is None and settings.api_keys is None:
        raise SetupError(
            "PROGRESS_AUTH=jwt needs a key to verify tokens with:"
            " set PROGRESS_JWT_KEY or PROGRESS_JWT_JWKS, or PROGRESS_API_KEYS if only workers call"
        )
    return tokens or ApiKeysOnly()


def guard_of(connection: HTTPConnection) -> Guard:
    """Return the guard of the app that serves a request or a WebSocket."""
    guard: Guard = connection.app.state.guard
    return guard
