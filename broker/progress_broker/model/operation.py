"""The model at the edges: what callers send, and what they are shown. On the hot path JSON stays opaque bytes.

Each model builds its validator when it is first used (`defer_build`): a worker uses few of them, and imports them all.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

OPERATION_ID = r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}"
EVENT_TYPE = r"[a-z][a-z0-9_.-]{0,63}"

RESERVED_TYPES = frozenset(
    {
        "error",
        "open",
        "snapshot",
        "reconnect",
        "replaced",
        "ping",
        "malformed",
        "child",
        "children",
        "operations",
        "missing",
    }
)
"""Names a publisher may not use: EventSource fires the first two itself, the others are the broker's."""


class Status(StrEnum):
    """Where an operation stands."""

    PENDING = "pending"
    RUNNING = "running"
    STALLED = "stalled"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def done(self) -> bool:
        """Whether nothing can follow."""
        return self in TERMINAL


TERMINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: TERMINAL | {Status.RUNNING, Status.CANCELLING},
    Status.RUNNING: TERMINAL | {Status.RUNNING, Status.STALLED, Status.CANCELLING},
    Status.STALLED: TERMINAL | {Status.RUNNING, Status.CANCELLING},
    Status.CANCELLING: TERMINAL,
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""What may follow what. `lua/publish.lua` enforces it; a test holds the two together."""


def is_id(name: str) -> bool:
    """Return whether a name can be an operation's id."""
    return re.fullmatch(OPERATION_ID, name) is not None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


def _not_cancel(value: str) -> str:
    if value == "cancel":
        raise ValueError("a cancel is more than a signal: ask for it by its own call")
    return value


def _milliseconds(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


MAX_LABEL_CHARS = 128
MAX_TITLE_CHARS = 512
MAX_TAGS = 16
MAX_WEIGHT = 1e9

_NO_CONTROLS = {"pattern": r"^[^\x00-\x1f\x7f]*$"}  # in a schema; what is printable beyond ASCII no pattern can say
Label = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LABEL_CHARS, json_schema_extra=_NO_CONTROLS),
    AfterValidator(_printable),
]
OperationId = Annotated[str, Field(pattern=f"^{OPERATION_ID}$")]
Time = Annotated[datetime, PlainSerializer(_milliseconds, return_type=str)]


# The one list of what can be said of an operation: the command line's options are made from it, and a test holds the
# SDK's options and the queues' to it.
class NewOperation(BaseModel):
    """The body that creates an operation. The same id with the same body is the same operation."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    id: OperationId | None = Field(None, description="chosen by the caller, or made by the server")
    kind: Label = Field("operation", description="what sort of work it is")
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] | None = Field(None, description="what people are shown")
    owner: Label | None = Field(None, description="whose it is")
    tags: Annotated[list[Label], Field(max_length=MAX_TAGS)] = Field(
        default_factory=list, description="what it is found by"
    )
    parent: OperationId | None = Field(None, description="the operation it belongs to")
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT, allow_inf_nan=False)] = Field(
        1, description="how much of its parent it is, compared with the other children"
    )
    lease_s: Annotated[float, Field(gt=0, le=86_400)] | None = Field(
        None, description="how long its worker may be silent; absent: the server's default; null: for ever"
    )


class NewSignal(BaseModel):
    """What is sent to an operation's worker."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    type: Annotated[str, Field(pattern=f"^{EVENT_TYPE}$"), AfterValidator(_not_cancel)] = Field(
        description="pause, resume, or what the worker understands; a cancel is asked for by its own call"
    )
    data: Any = None


class Cancel(BaseModel):
    """That the work was asked to stop."""

    model_config = ConfigDict(defer_build=True)

    reason: str | None = None
    by: str | None = None


class CancelShown(Cancel):
    """A cancel as people are shown it. A worker that still works at `overdue_at` ignores it."""

    requested_at: Time
    overdue_at: Time


class ChildrenSummary(BaseModel):
    """What an operation's children add up to."""

    model_config = ConfigDict(defer_build=True)

    total: int
    done: int = Field(description="those that have ended, whichever way")
    failed: int
    cancelled: int
    running: int = Field(description="those at work: running, stalled or cancelling")
    percent: float = Field(description="how far they are, by their weights")


class Operation(BaseModel):
    """A snapshot: all there is to know of an operation at one position of its log."""

    model_config = ConfigDict(defer_build=True)

    id: str
    kind: str
    title: str | None
    owner: str | None
    tags: list[str]
    parent: str | None
    weight: float
    status: Status
    done: bool
    attempt: int
    worker: str | None
    cancel_requested: bool
    cancel: CancelShown | None
    progress: dict[str, Any] | None
    children: "Children | ChildrenSummary | None" = None
    result: Any
    error: dict[str, Any] | None
    created_at: Time
    started_at: Time | None
    updated_at: Time
    finished_at: Time | None
    expires_at: Time | None
    position: str
    events: int


class Children(ChildrenSummary):
    """An operation's children: what they add up to, and the first of them."""

    operations: list[Operation]


class Answer(BaseModel):
    """What a publisher learns: where its last event stands, how many there are, and whether it should stop."""

    model_config = ConfigDict(defer_build=True)

    position: str
    events: int
    cancel_requested: bool
    cancel: Cancel | None = None
