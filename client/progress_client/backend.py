"""What a client asks of where the operations are: a server, or Redis."""

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation, NewSignal, Operation, PublishResult
from progress_broker.queries.filters import Filters
from progress_broker.storage.lanes import shown
from progress_client.events import Event

log = logging.getLogger("progress_client")

FROM_START = "start"
"""In place of a position: before the oldest event that is kept."""

CLOSED = "the client was closed"
"""The text of the error for what is still asked of a closed client."""
OTHER_LOOP = (
    "an AsyncClient belongs to the event loop of its first call, which still runs: make another one for this event"
    " loop, or use a Client"
)
OTHER_PROCESS = "an iterator of a Client can't go on in a forked process: call `watch` or `list` again there"
AT_EXIT = "progress_client can't connect any more, because the interpreter shuts down: call it before the program ends"


def warn_if_partial(lanes_away: Sequence[int]) -> None:
    """Log that operations are missing in a list, if lanes could not be reached."""
    if lanes_away:
        log.warning("operations are missing in this list: %s can't be reached now", shown(lanes_away))


class Bookmark(NamedTuple):
    """Everything up to here that was asked for has been told."""

    position: str


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin to follow an operation."""

    position: str | None
    """After this position, or `start`; None: with a snapshot."""
    seen: bool = False
    """Whether the position is that of an event or a bookmark that this client was told."""


class ComeBack(Exception):
    """Following was broken off in an orderly way; it goes on with another call. Its text is the reason."""

    def __init__(self, reason: str, after_s: float) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Backend(Protocol):
    """The operations, over HTTP or in Redis. Each method raises a `BrokerError` if it fails."""

    async def get(self, operation: str, *, list_children: bool = False) -> Operation:
        """Return an operation, on request with its first children."""

    async def find(self, filters: Filters, limit: int, cursor: str | None) -> tuple[list[Operation], str | None]:
        """Return a page of operations, last changed first, and the cursor of the next page, or None at the end."""

    async def create(self, new: NewOperation) -> Operation:
        """Create an operation; the same call again returns the same operation."""

    async def publish(self, operation: str, entries: Sequence[NewEvent]) -> PublishResult:
        """Append events to an operation, all or none."""

    async def cancel(self, operation: str, *, reason: str | None, by: str | None, force: bool) -> Operation:
        """Ask an operation's worker to stop; return the operation as it is then."""

    async def signal(self, operation: str, signal: NewSignal, *, by: str | None) -> None:
        """Send a signal to an operation's worker."""

    async def now(self) -> datetime:
        """Return the time by the clock that the times of operations are by."""

    def follow(self, operation: str, start: Start, types: frozenset[str] | None) -> AsyncGenerator[Event | Bookmark]:
        """Yield what follows the start, as it happens, up to the end, after which the iterator ends.

        Of the types only these are told, and `snapshot`, `reset` and `end`. Raises what ended it before; the caller
        goes on from the last position. `ComeBack` if that is only a pause.
        """

    async def close(self) -> None:
        """Close the connections."""
