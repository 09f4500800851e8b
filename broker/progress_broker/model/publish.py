"""A publish: what one process adds to one operation at once, and the answer to it. No I/O happens here."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import Cancel, Status


class Publish(NamedTuple):
    """Entries for an operation, which are stored all or none; without entries it is a heartbeat.

    `attempt` fences: an older one than the operation's is rejected, and one of an operation of this id that was not
    created at `created_ms`; if it `begins`, it takes over from the one before. `expect` is the status that the
    operation must have, if given. Its worker may be silent for `lease_ms` from now on, if that is longer than its
    lease. An observer is not its worker: its lease stays as it is. `after` is a producer and its last seq that was said
    to be stored. If it is not, Redis has lost it since, and the answer is `Gap`.
    """

    operation: str
    entries: Sequence[NewEvent] = ()
    attempt: int | None = None
    begins: bool = False
    created_ms: int | None = None
    worker: str = ""
    expect: str = ""
    lease_ms: int | None = None
    as_observer: bool = False
    traceparent: str = ""
    after: tuple[str, int] | None = None

    @property
    def ends(self) -> bool:
        """Whether it ends the operation."""
        return bool(self.entries) and self.entries[-1].type == "end"


class Created(NamedTuple):
    """An operation that exists, whether it is new or was created before, as its worker needs it."""

    new: bool
    events: int
    """How many events it has."""
    created_ms: int | None
    idle_timeout_s: float | None
    """How long it is kept without events."""
    cancel: Cancel | None = None
    """The cancel of its parent, which has ended this operation too."""
    confirmed: bool | None = None
    """Whether a replica of Redis has it, too; None: there is none, or nobody asked."""


class Counts(NamedTuple):
    """What the publishers of an operation have counted, if there are several."""

    own: float | None
    """The count of the publisher that speaks for the operation as a whole; None: it has none."""
    own_total: float | None
    joined: float
    """What the others have added to the count."""
    joined_total: float

    @property
    def current(self) -> float:
        """How much is done."""
        return max(0, (self.own or 0) + self.joined)

    @property
    def total(self) -> float | None:
        """How much there is to do; None: unknown."""
        return None if self.own_total is None and not self.joined_total else (self.own_total or 0) + self.joined_total


def read_counts(data: bytes | None) -> Counts | None:
    """Return the counts that the script keeps; None if a single publisher counts, or another program wrote them."""
    numbers = [_number(text) for text in (data or b"").split(b" ")]
    if len(numbers) != 4 or numbers[2] is None or numbers[3] is None:
        return None
    return Counts(numbers[0], numbers[1], numbers[2], numbers[3])


def _number(text: bytes) -> float | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, int | float) else None


class Published(NamedTuple):
    """The answer to a publish that was accepted."""

    position: str
    """The position of the operation's last event."""
    events: int
    """How many events the operation has."""
    cancel: Cancel | None = None
    """The request to stop, if there was one."""
    counts: Counts | None = None
    """What all publishers have counted, if there are several."""
    confirmed: bool | None = None
    """If it ended the operation: whether a replica of Redis has that, too; None: there is none, or nobody asked."""


class WorkerView(NamedTuple):
    """The state of an operation that a worker needs before it publishes."""

    status: Status = Status.PENDING
    attempt: int = 1
    lease_s: float | None = None
    progress: dict[str, Any] = {}  # noqa: RUF012 - never written to
    cancel: Cancel | None = None
    created_ms: int | None = None
    idle_timeout_s: float | None = None
    traceparent: str = ""
    counts: Counts | None = None
    started_ms: int | None = None
    metadata: dict[str, Any] = {}  # noqa: RUF012 - never written to
    parent: str | None = None
    finished_ms: int | None = None

    @property
    def cancelled_at_s(self) -> float | None:
        """When it was cancelled, in seconds since 1970; None if it was not, 0 if the time is unknown."""
        return (self.finished_ms or 0) / 1000 if self.status is Status.CANCELLED else None
