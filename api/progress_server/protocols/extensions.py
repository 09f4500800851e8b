"""What our protocols offer an application, as extensions of its ASGI scope; on any other server they are absent.

Nothing of uvicorn is imported here, so that an application can ask for them whatever it runs on.
"""

import asyncio
from typing import Any, NamedTuple, Protocol

ADOPTION = "progress_broker.adoption"
"""The key of a `ConnectionOffer`, in the scope of a GET request."""

ABORT = "progress_broker.abort"
"""The key of a function that cuts the connection, in the scope of a WebSocket."""


REJECTION = "progress_broker.rejection"
"""The key of an error code, in the scope of a request that can't be read: the app answers it with that problem."""


class Connection(NamedTuple):
    """A connection that was taken over."""

    transport: asyncio.Transport
    connections: set[Any]
    """uvicorn's connections: it counts them, and ends each by its `shutdown()`. While it lasts, be one of them."""


class ConnectionOffer(Protocol):
    """A connection that can be taken over from the server (`api/progress_server/protocols/adoption.py`)."""

    def without_chunks(self) -> None:
        """Write a head without chunked encoding: the body ends with the connection, as HTTP/1.0 requires."""
        ...

    async def adopt(self, limit: int) -> Connection | None:
        """Take the connection once it holds at most `limit` bytes; None if the response has to go on as it began."""
        ...
