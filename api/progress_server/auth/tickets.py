"""Tickets: short-lived credentials to read one thing. They may stand in a URL, as EventSource can't set headers.

A ticket is a JSON Web Token (RFC 7519), signed with a key of its own. Its type, issuer, audience and `opens` are
checked as well, so that a ticket never passes for an access token, nor an access token for a ticket (RFC 8725, 3.11).
Claims of ours:

- `opens`: what it is for. `{"operation": …}`, or `{"grants": …, "limits": …}` for a stream of many operations.
- `proof_exp` and `proof_jti`: when the credentials that it was issued for expire, and their id, if they have them.

There is no `iat` and no `nbf`: the clock of the replica that takes the ticket may be behind.
"""

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jwt
from jwt.types import Options
from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.errors import TooLarge, Unauthenticated
from progress_broker.model.grants import Action, Grant, Grants
from progress_server.auth.claims import GrantClaim
from progress_server.auth.jwt import DECODE_ERRORS, TICKET_TYPE, not_valid
from progress_server.auth.principal import Principal
from progress_server.http.paths import RequestClass, class_of, operation_in

MAX_TICKET = 4096
"""Maximum bytes of a ticket: some clients and proxies reject longer URLs."""
ISSUER = "progress-broker"
AUDIENCE = "progress-streams"
ALGORITHM = "HS256"

_OPTIONS: Options = {"require": ["iss", "aud", "exp", "sub", "jti", "opens"], "strict_aud": True}
_READ = frozenset({Action.READ})


class Tickets:
    """Issues and verifies tickets, on any replica that has the same secret."""

    def __init__(self, secret: Callable[[], Awaitable[bytes]], life_s: float) -> None:
        self._secret, self._life_s = secret, life_s

    async def for_operation(self, principal: Principal, operation: str) -> tuple[str, float]:
        """Return a ticket to read an operation's events, and its expiry. The caller must have checked permission."""
        return await self._issue(principal, {"operation": operation})

    async def for_many(self, principal: Principal, grants: Grants) -> tuple[str, float]:
        """Return a ticket for a stream of many operations, those that the grants allow to read; and its expiry."""
        return await self._issue(principal, {"grants": _claims_of(grants.given), "limits": _claims_of(grants.limits)})

    async def _issue(self, principal: Principal, opens: dict[str, Any]) -> tuple[str, float]:
        expires_at = math.ceil(time.time() + self._life_s)  # PyJWT compares whole seconds
        if principal.expires_at is not None:
            expires_at = min(expires_at, math.floor(principal.expires_at))
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": principal.name, "exp": expires_at, "opens": opens}
        claims |= {"jti": secrets.token_urlsafe(9), "proof_exp": principal.expires_at, "proof_jti": principal.token_id}
        given = {name: value for name, value in claims.items() if value is not None}
        ticket = jwt.encode(given, await self._key(), ALGORITHM, {"typ": TICKET_TYPE})
        if len(ticket) > MAX_TICKET:
            raise TooLarge(
                "you have too many grants for a ticket, because a ticket must fit into a URL: name the"
                " operations in the request"
            )
        return ticket, expires_at

    async def verify(self, connection: HTTPConnection, ticket: str) -> Principal:
        """Return the principal of a ticket, which may only read what the ticket opens; raise `Unauthenticated` if the
        ticket is not valid for this request."""
        claims = await self._verified(ticket)
        scope = connection.scope
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            raise Unauthenticated("the request changes something, but a ticket only allows reading")
        opens = claims["opens"]
        grants = _for_one(opens["operation"], scope) if "operation" in opens else _for_many(opens, class_of(scope))
        if grants is None:
            raise Unauthenticated("the ticket is for another operation or another kind of request")
        return Principal(claims["sub"], grants, claims.get("proof_exp"), claims.get("proof_jti"))

    async def _verified(self, ticket: str) -> dict[str, Any]:
        if len(ticket) > MAX_TICKET:
            raise Unauthenticated(f"the ticket is longer than {MAX_TICKET} bytes")
        key = await self._key()
        try:
            token = jwt.decode_complete(ticket, key, [ALGORITHM], _OPTIONS, audience=AUDIENCE, issuer=ISSUER)
        except DECODE_ERRORS as error:
            raise not_valid("ticket", error) from None
        if token["header"].get("typ") != TICKET_TYPE:
            raise Unauthenticated("the value of `ticket` is a token of another type")
        claims: dict[str, Any] = token["payload"]
        return claims

    async def _key(self) -> bytes:
        return hmac.digest(await self._secret(), b"progress-broker ticket 1", hashlib.sha256)


def _for_one(operation: str, scope: Scope) -> Grants | None:
    meant = class_of(scope).of_one and operation_in(scope) == operation
    return Grants((Grant(_READ, ids=frozenset({operation})),)) if meant else None


def _for_many(opens: dict[str, Any], request: RequestClass) -> Grants | None:
    meant = request.streams and not request.of_one
    return Grants(_grants(opens["grants"]), _grants(opens["limits"])) if meant else None


def _claims_of(grants: Sequence[Grant]) -> list[dict[str, Any]]:
    """Return the claims of the grants that allow reading, without empty selectors."""
    return [GrantClaim.selectors_of(grant) for grant in grants if grant.names(Action.READ)]


def _grants(claims: list[dict[str, Any]]) -> tuple[Grant, ...]:
    return tuple(GrantClaim(actions=[Action.READ], **selectors).grant() for selectors in claims)
