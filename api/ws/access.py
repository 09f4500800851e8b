"""Access: the one place where a socket asks whether its client may do something to an operation."""

from typing import Literal

from starlette.requests import HTTPConnection

Action = Literal["read", "cancel"]


def name_of(connection: HTTPConnection) -> str:
    """Return who calls; nobody in particular is ""."""
    return getattr(connection.scope.get("state", {}).get("principal"), "name", "")


async def require(connection: HTTPConnection, action: Action, operation: str) -> None:
    """Raise `NotFound` or `Forbidden` unless the client may. Without authentication everybody may do everything."""
