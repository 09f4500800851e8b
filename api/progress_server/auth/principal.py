"""The principal: who a connection acts for, and what it may do."""

from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.model.grants import EVERYTHING, Grants

STATE = "principal"
"""The key among the `state` of a connection's scope."""


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller: its name, what it may do, and when its credentials expire."""

    name: str
    """The caller's name; empty if no credentials are required."""
    grants: Grants
    expires_at: float | None = None
    """When its credentials expire, in seconds since 1970; its streams end then, too."""
    token_id: str | None = None
    """The id that its credentials can be revoked by, beside the name."""


ANONYMOUS = Principal("", EVERYTHING)
"""The principal of all callers if no credentials are required."""


def principal_in(scope: Scope) -> Principal | None:
    """Return the principal of a connection, or None before it was authenticated."""
    found: Principal | None = scope.get("state", {}).get(STATE)
    return found


def principal_of(connection: HTTPConnection) -> Principal:
    """Return the principal of a connection. Raise `LookupError` if it was not authenticated, which is a bug."""
    found = principal_in(connection.scope)
    if found is None:
        raise LookupError("this connection was not authenticated")
    return found
