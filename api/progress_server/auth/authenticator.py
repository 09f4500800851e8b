"""What a way to authenticate has to be, and the way that asks nothing."""

from typing import Protocol

from starlette.requests import HTTPConnection

from progress_server.auth.principal import ANYONE, Principal


class Authenticator(Protocol):
    """Tells who speaks in a connection."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return who speaks; raise `Unauthenticated`, whose text is for the log alone."""
        ...


class Open:
    """Takes everybody: for one machine, or where something in front keeps strangers out."""

    async def authenticate(self, connection: HTTPConnection) -> Principal:
        """Return the one who may do all."""
        return ANYONE
