"""The two ends of every move: operations come from a source and go to a target.

Redis, a server and a file are both. So each command that moves operations is one source, one target and options.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from progress_broker.transfer.format import ExportedEvent, ExportedOperation, ExportHead


class OperationCopy(Protocol):
    """One operation on its way."""

    operation: ExportedOperation

    def events(self) -> AsyncGenerator[Sequence[ExportedEvent]]:
        """Yield the events in parts, in the order of `n`, each once. It can be read once.

        Raises `Gone` if the operation was deleted meanwhile, and `InvalidInput` if the source is damaged. Then nothing
        that it yielded counts.
        """


class OperationSource(Protocol):
    """Where operations come from."""

    async def head(self) -> ExportHead:
        """Return where the operations come from, and what was chosen."""

    def operations(self) -> AsyncGenerator[OperationCopy]:
        """Yield the operations, in the order of their creation where the source has one.

        Each is read to its end, or left, before the next one is asked for.
        """


class OperationTarget(Protocol):
    """Where operations go to."""

    def store(self, source: OperationSource, options: "ImportOptions") -> "AsyncGenerator[Outcome]":
        """Store each operation whole, or not at all; yield what came of it.

        Raises what the source raises, and `StorageUnavailable` or `StorageFull`. Then nothing can be seen of the
        operation after the last outcome, and the same may be stored again.
        """


class Positions(StrEnum):
    """Which positions events have at the target."""

    KEEP = "keep"
    """Their own, so that clients of the source resume there."""
    NEW = "new"
    """Those of a new operation, as if its events were published now."""


class OnConflict(StrEnum):
    """What happens to an operation whose id the target has with other contents."""

    FAIL = "fail"
    SKIP = "skip"
    REPLACE = "replace"


class Unfinished(StrEnum):
    """What happens to an operation that has not ended."""

    REFUSE = "refuse"
    END = "end"
    """It is ended as failed."""
    KEEP = "keep"
    """It is stored without a lease."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How operations are stored."""

    positions: Positions = Positions.KEEP
    on_conflict: OnConflict = OnConflict.FAIL
    suffix: str = ""
    """What is put behind the id of each operation, and of its parent: so it is stored beside another one."""
    unfinished: Unfinished = Unfinished.REFUSE
    dry_run: bool = False
    """Only say what would come of each operation."""


class Result(StrEnum):
    """What came of an operation."""

    STORED = "stored"
    REPLACED = "replaced"
    SKIPPED = "skipped"
    """The target has the same already, or was told to keep its own."""
    CONFLICT = "conflict"
    REFUSED = "refused"


class Outcome(NamedTuple):
    """What came of an operation, and why."""

    id: str
    """The id at the target."""
    result: Result
    why: str = ""


def described(results: Mapping[str, int]) -> str:
    """Return how many operations had each result, for people."""
    return ", ".join(f"{count} {result}" for result, count in results.items())
