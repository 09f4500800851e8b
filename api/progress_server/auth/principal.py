"""The principal: who a connection speaks for, and what it may do."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.model.grants import EVERYTHING, Grants

STATE = "principal"
"""The key among the `state` of a connection's scope."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who has proved to be whom."""

    name: str
    """Empty where nobody had to prove anything."""
    grants: Grants
    expires_at: float | None = None
    """When its proof ends, in seconds since 1970; a stream ends then, too."""
    token_id: str | None = None
    """What its proof can be revoked by, beside the name."""


ANYONE = Principal("", EVERYTHING)
"""Who calls where nobody has to prove anything."""


def principal_in(scope: Scope) -> Principal | None:
    """Return who was found to speak in a connection, or None before that."""
    found: Principal | None = scope.get("state", {}).get(STATE)
    return found


def principal_of(connection: HTTPConnection) -> Principal:
    """Return who speaks. A connection that nobody looked at has none, which is a fault of ours and raises."""
    found = principal_in(connection.scope)
    if found is None:
        raise LookupError("nobody has authenticated this connection")
    return found
