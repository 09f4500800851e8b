"""The principal: who a connection acts for, and what it may do."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import HTTPConnection
from starlette.types import Scope

from progress_broker.model.grants import EVERYTHING, Action, Grant, Grants

STATE = "principal"
"""The key among the `state` of a connection's scope."""

_OWN = frozenset({Action.READ, Action.CANCEL})


@dataclass(frozen=True, slots=True, init=False)
class Principal:
    """An authenticated caller: its name, what it may do, and when its credentials expire.

    Without `grants` it may read and cancel the operations that it owns, and nothing else. Raises `TypeError` for a name
    that is not a text, and for grants that `granted` has not made.
    """

    name: str
    """The caller's name; empty if no credentials are required."""
    grants: Grants
    expires_at: float | None = None
    """When its credentials expire, in seconds since 1970; its streams end then, too."""
    token_id: str | None = None
    """The id that its credentials can be revoked by, beside the name."""

    def __init__(
        self,
        name: str,
        grants: Grants | Iterable[Grant] | None = None,
        expires_at: float | None = None,
        token_id: str | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a principal is a text, not a value of type {type(name).__name__}")
        if grants is None:
            grants = Grants((Grant(_OWN, owners=frozenset({name})),))
        elif not isinstance(grants, Grants):
            given = tuple(grants)
            if not all(isinstance(grant, Grant) for grant in given):
                raise TypeError(
                    'the grants of a principal are a list of those that `granted` makes: [granted(["read"])]'
                )
            grants = Grants(given)
        values = {"name": name, "grants": grants, "expires_at": expires_at, "token_id": token_id}
        for field, value in values.items():
            object.__setattr__(self, field, value)  # the class is frozen


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
