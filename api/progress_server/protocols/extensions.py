"""The extensions of the ASGI scope that our protocols offer. On any other server they are absent.

This module imports nothing from uvicorn, so that an application can look for the extensions on any server.
"""

import asyncio
from typing import Any, NamedTuple, Protocol

ADOPTION = "progress_broker.adoption"
"""The key of a `ConnectionOffer`, in the scope of a GET request."""

ABORT = "progress_broker.abort"
"""The key of a function that cuts the connection, in the scope of a WebSocket."""


REJECTION = "progress_broker.rejection"
"""The key of an error code, in the scope of a request that can't be read: the app answers it with that problem."""

REJECTION_DETAILS = {
    "bad-request": "not a valid HTTP request",
    "request-timeout": "the request's headers did not arrive in time (PROGRESS_REQUEST_TIMEOUT_S); send them at once",
    "uri-too-long": "the URL exceeds the limit (PROGRESS_MAX_URL_BYTES); ask for less at a time",
    "rate-limited": "too many requests were sent ahead of their responses; wait for responses",
    "head-too-large": "the URL and the headers exceed the limit (PROGRESS_MAX_HEAD_BYTES); an oversized cookie is the"
    " usual cause",
}


class Connection(NamedTuple):
    """A connection that was taken over from uvicorn."""

    transport: asyncio.Transport
    connections: set[Any]
    """The set of uvicorn's connections, which it counts, and ends by `shutdown()`. The new owner must be in it while
    the connection lasts."""
    head: bytes = b""
    """The head of the response, if it was not written yet: the new owner writes it together with the first data."""


class ConnectionOffer(Protocol):
    """A connection that can be taken over from the server (`api/progress_server/protocols/adoption.py`)."""

    held: bool
    """Whether it could not be taken over because middleware of the app still held the head of the response."""

    def without_chunks(self) -> None:
        """Write a head without chunked encoding: the body ends with the connection, as HTTP/1.0 requires."""
        ...

    async def adopt(self, limit: int) -> Connection | None:
        """Take over the connection once it buffers at most `limit` bytes. Return None if the response has to continue
        with `send`."""
        ...
