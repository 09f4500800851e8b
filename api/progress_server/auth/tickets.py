"""Tickets: proof for one stream, short-lived and read-only, that may stand in a URL (EventSource can't set headers).

A ticket is `<payload>.<signature>`, both in base64url. The signature is HMAC-SHA256 with a key of its own, so no
ticket passes for a token, nor the other way round. The payload is JSON: `p` the principal, `j` its token's id,
`x` when that token expires, `e` when the ticket does, and what it is for: `o` an operation, or `g` and `l`, grants and
limits, for a stream of many.
"""

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.errors import TooLarge, Unauthenticated
from progress_broker.model.grants import Action, Grant, Grants
from progress_server.auth.claims import GrantClaim
from progress_server.auth.principal import Principal
from progress_server.http.paths import RequestClass, class_of, operation_in

MAX_TICKET = 4096
"""Longer ones would not pass in a URL everywhere."""
_READ = frozenset({Action.READ})


class Tickets:
    """Makes tickets, and takes them, on any replica that has the same secret."""

    def __init__(
        self, secret: Callable[[], Awaitable[bytes]], life_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret, self._life_s, self._clock = secret, life_s, clock

    async def for_operation(self, principal: Principal, operation: str) -> tuple[str, float]:
        """Return a ticket for what an operation tells, and when it expires. That it may be read is known."""
        return await self._make(principal, {"o": operation})

    async def for_many(self, principal: Principal, grants: Grants) -> tuple[str, float]:
        """Return a ticket for a stream of many operations, of which these grants tell what may be read."""
        return await self._make(principal, {"g": _told(grants.given), "l": _told(grants.limits)})

    async def _make(self, principal: Principal, purpose: dict[str, Any]) -> tuple[str, float]:
        expires_at = min(self._clock() + self._life_s, principal.expires_at or float("inf"))
        told = {"p": principal.name, "j": principal.token_id, "x": principal.expires_at, "e": expires_at} | purpose
        payload = urlsafe_b64encode(orjson.dumps(told)).rstrip(b"=")
        ticket = (payload + b"." + await self._signature(payload)).decode()
        if len(ticket) > MAX_TICKET:
            raise TooLarge("your grants are too many for a ticket, which stands in a URL: name the operations")
        return ticket, expires_at

    async def take(self, connection: HTTPConnection, ticket: str) -> Principal:
        """Return whose ticket it is, with what it is for as their only grants; raise `Unauthenticated`."""
        told = await self._read(ticket)
        if told["e"] <= self._clock():
            raise Unauthenticated("the ticket has expired")
        if connection.scope["type"] == "http" and connection.scope["method"] not in ("GET", "HEAD"):
            raise Unauthenticated("a ticket is for reading")
        scope = connection.scope
        grants = _for_one(told["o"], scope) if "o" in told else _for_many(told, class_of(scope))
        if grants is None:
            raise Unauthenticated("the ticket is for something else")
        return Principal(told["p"], grants, told["x"], told["j"])

    async def _read(self, ticket: str) -> dict[str, Any]:
        payload, _, signature = ticket.encode("utf-8", "replace").partition(b".")
        if len(ticket) > MAX_TICKET or not hmac.compare_digest(signature, await self._signature(payload)):
            raise Unauthenticated("the ticket is none of ours")
        told: dict[str, Any] = orjson.loads(urlsafe_b64decode(payload + b"==="))
        return told

    async def _signature(self, payload: bytes) -> bytes:
        key = hmac.digest(await self._secret(), b"progress-broker ticket 1", hashlib.sha256)
        return urlsafe_b64encode(hmac.digest(key, payload, hashlib.sha256)).rstrip(b"=")


def _for_one(operation: str, scope: Scope) -> Grants | None:
    meant = class_of(scope).of_one and operation_in(scope) == operation
    return Grants((Grant(_READ, ids=frozenset({operation})),)) if meant else None


def _for_many(told: dict[str, Any], request: RequestClass) -> Grants | None:
    meant = request.streams and not request.of_one
    return Grants(_grants(told["g"]), _grants(told["l"])) if meant else None


def _told(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return what grants say of reading, without what they don't narrow."""
    return [
        {name: list(values) for name, values in asdict(grant).items() if values is not None and name != "actions"}
        for grant in grants
        if grant.names(Action.READ)
    ]


def _grants(told: list[dict[str, Any]]) -> tuple[Grant, ...]:
    return tuple(GrantClaim(actions=[Action.READ], **selectors).grant() for selectors in told)
