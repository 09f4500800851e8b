"""What is replayed: the events of operations, in the order of their times."""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from progress_broker.errors import InvalidInput, TooLarge
from progress_broker.model.event import Event
from progress_broker.model.position import milliseconds, order, parse
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.transfer.endpoints import OperationSource
from progress_broker.transfer.format import ExportedEvent, ExportedOperation

MOST_BYTES = 512 * 1024 * 1024
"""How much data of events is replayed at once."""


class Recorded(NamedTuple):
    """An event of an operation."""

    operation: str
    event: ExportedEvent

    @property
    def frame(self) -> Frame:
        """The event as clients get it."""
        n, position, kind, data, _, _ = self.event
        return make_frame(Event(self.operation.encode(), position, n, kind, data))


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the events are replayed."""

    since_ms: int | None = None
    until_ms: int | None = None
    """Before this time."""
    after: str | None = None
    """After this position, in the order of time."""
    types: frozenset[str] = frozenset()
    """Only these; all if it is empty. An `end` is always among them."""

    def has(self, event: ExportedEvent) -> bool:
        """Return whether an event is replayed."""
        ms = milliseconds(event.position)
        return (
            (self.since_ms is None or self.since_ms <= ms)
            and (self.until_ms is None or ms < self.until_ms)
            and (self.after is None or order(event.position) > parse(self.after))
            and (not self.types or event.type == b"end" or event.type.decode("utf-8", "replace") in self.types)
        )


class Recording(NamedTuple):
    """Operations, and their events that are replayed, oldest first."""

    operations: Mapping[str, ExportedOperation]
    events: Sequence[Recorded]


async def load(source: OperationSource, choice: Choice) -> Recording:
    """Read what is to be replayed; raise `InvalidInput` if there is nothing, and `TooLarge` if it is too much."""
    operations: dict[str, ExportedOperation] = {}
    events: list[Recorded] = []
    size = 0
    async with aclosing(source.operations()) as copies:
        async for copy in copies:
            operations[copy.operation.id] = copy.operation
            async with aclosing(copy.events()) as parts:
                async for part in parts:
                    chosen = [Recorded(copy.operation.id, event) for event in part if choice.has(event)]
                    size += sum(len(recorded.event.data) for recorded in chosen)
                    events += chosen
            if size > MOST_BYTES:
                raise TooLarge(f"the events have more than {MOST_BYTES >> 20} MiB: replay fewer operations at once")
    if not operations:
        raise InvalidInput("there is nothing to replay: no operation matches")
    if len(operations) > 1:
        events.sort(key=lambda recorded: order(recorded.event.position))
    return Recording(operations, events)
