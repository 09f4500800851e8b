"""What is replayed: the events of operations, in the order of their times."""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import Operation
from progress_broker.model.position import milliseconds, order, parse
from progress_broker.replay.spool import Recorded as Recorded
from progress_broker.replay.spool import Spool
from progress_broker.transfer.endpoints import OperationSource
from progress_broker.transfer.format import ExportedEvent, ExportedOperation
from progress_broker.transfer.state import read_state


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

    def is_before(self, event: ExportedEvent) -> bool:
        """Return whether an event is earlier than all that are replayed."""
        ms = milliseconds(event.position)
        return (self.since_ms is not None and ms < self.since_ms) or (
            self.after is not None and order(event.position) <= parse(self.after)
        )


class Recording(NamedTuple):
    """Operations, and their events that are replayed, oldest first."""

    operations: Mapping[str, ExportedOperation]
    events: Spool


def any_operation(_: Operation) -> bool:
    """Choose every operation."""
    return True


async def load(
    source: OperationSource,
    choice: Choice,
    spool: Spool,
    matches: Callable[[Operation], bool] = any_operation,
) -> Recording:
    """Read what is to be replayed into a spool. Raise `InvalidInput` if there is nothing, `TooLarge` without room."""
    operations: dict[str, ExportedOperation] = {}
    async with aclosing(source.operations()) as copies:
        async for copy in copies:
            if matches is not any_operation and not matches(read_state(copy.operation)):
                continue
            operations[copy.operation.id] = copy.operation
            async with aclosing(copy.events()) as parts:
                async for part in parts:
                    if chosen := [event for event in part if choice.has(event)]:
                        spool.append(copy.operation.id, chosen)
    if not operations:
        raise InvalidInput("there is nothing to replay: no operation matches")
    return Recording(operations, spool)
