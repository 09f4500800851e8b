"""The request and response models. On the hot path JSON is passed on as bytes and is not parsed.

Each model builds its validator at first use (`defer_build`), because a worker imports all of them and uses few.
"""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PrivateAttr

from progress_broker.model.metadata import INDEXED_KEY, merged, terms
from progress_broker.model.progress import number, one_line, reported_percent
from progress_broker.model.validation import fits_nesting_limit

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
        "bookmark",
        "replay-end",
    }
)
"""Event types that publishers may not use. EventSource fires the first two itself; the broker uses the others."""


BUILT_IN_TYPES = frozenset({"progress", "log", "metadata", "status", "end"})
"""Event types whose data has a meaning for the broker."""


class Status(StrEnum):
    """An operation's status."""

    PENDING = "pending"
    RUNNING = "running"
    STALLED = "stalled"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def done(self) -> bool:
        """Whether the operation has ended: nothing can follow."""
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
"""The allowed next statuses of each status. `lua/publish.lua` enforces them; a test compares the two."""


def is_id(name: str) -> bool:
    """Return whether a name is a valid operation id."""
    return re.fullmatch(OPERATION_ID, name) is not None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


def _not_cancel(value: str) -> str:
    if value == "cancel":
        raise ValueError("`cancel` is not a signal type: use `POST …/cancel` or `progress-broker cancel ID`")
    return value


def _metadata_filter(value: str) -> str:
    key, separator, text = value.partition(":")
    if not separator:
        raise ValueError("expected `key:value`, such as `customer:42`")
    return next(terms(key, [text]))


def _kept_metadata(value: dict[str, Any]) -> dict[str, Any]:
    if not fits_nesting_limit(value):
        raise ValueError("metadata must be JSON, nested about 240 levels deep at most")
    return merged(value, {})


def _milliseconds(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


MAX_LABEL_CHARS = 128
MAX_TITLE_CHARS = 512
MAX_REASON_CHARS = 1024
MAX_TAGS = 16
MAX_WEIGHT = 1e9
MAX_HISTORY = 100_000
MAX_RETENTION_S = 10 * 366 * 86_400

_NO_CONTROLS = {"pattern": r"^[^\x00-\x1f\x7f]*$"}  # in the schema; no pattern can describe non-ASCII
Label = Annotated[
    str,
    Field(min_length=1, max_length=MAX_LABEL_CHARS, json_schema_extra=_NO_CONTROLS),
    AfterValidator(_printable),
]
OperationId = Annotated[str, Field(pattern=f"^{OPERATION_ID}$")]
MetadataFilter = Annotated[
    str,
    Field(json_schema_extra={"pattern": f"^{INDEXED_KEY}:", "examples": ["customer:42"]}),
    AfterValidator(_metadata_filter),
]
"""A value of metadata to search by: `key:value`, or in Python the `key=value` of its index."""
Metadata = Annotated[dict[str, Any], AfterValidator(_kept_metadata)]
Time = Annotated[datetime, PlainSerializer(_milliseconds, return_type=str)]


# The only list of an operation's options. The command line's options are made from it, and a test compares the options
# of the SDK and of the task queues with it.
class NewOperation(BaseModel):
    """The request body that creates an operation. Sending the same id with the same body again is safe."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    id: OperationId | None = Field(None, description="operation id; the server generates one if absent")
    kind: Label = Field("operation", description="category of the work")
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] | None = Field(None, description="text to display")
    owner: Label | None = Field(None, description="name of the owner")
    tags: Annotated[list[Label], Field(max_length=MAX_TAGS)] = Field(
        default_factory=list, description="labels to search and filter by"
    )
    metadata: Metadata = Field(
        default_factory=dict, description="JSON object of the application, to show and to search by; 16 KiB at most"
    )
    parent: OperationId | None = Field(None, description="id of the parent operation")
    weight: Annotated[float, Field(gt=0, le=MAX_WEIGHT, allow_inf_nan=False, strict=True)] = Field(
        1, description="share of the parent's work, relative to the parent's other children"
    )
    lease_s: Annotated[float, Field(gt=0, le=86_400, strict=True)] | None = Field(
        None,
        description="seconds that the worker may send no heartbeat before the operation counts as stalled;"
        " absent: the server's default; null: no limit",
    )
    retention_s: Annotated[float, Field(gt=0, le=MAX_RETENTION_S, strict=True)] | None = Field(
        None, description="seconds to keep the operation after its end, if that is less than the server's retention"
    )
    history_length: Annotated[int, Field(ge=1, le=MAX_HISTORY)] | None = Field(
        None, description="about how many events to keep, besides `progress`; absent: the server's default"
    )


class NewSignal(BaseModel):
    """A signal to an operation's worker."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    type: Annotated[str, Field(pattern=f"^{EVENT_TYPE}$"), AfterValidator(_not_cancel)] = Field(
        description="pause, resume, or a custom type that the worker supports; `cancel` has its own request"
    )
    data: Any = None


class Cancel(BaseModel):
    """A request to stop the work."""

    model_config = ConfigDict(defer_build=True)

    reason: str | None = None
    by: str | None = None


class NewCancel(BaseModel):
    """A request to stop the work, as it is made. What is read may be longer: other programs write to Redis too."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)] | None = None


class CancelShown(Cancel):
    """A cancel request in a snapshot. A worker that is still running at `overdue_at` ignores the request."""

    requested_at: Time
    overdue_at: Time


class ChildrenSummary(BaseModel):
    """The summary of an operation's children."""

    model_config = ConfigDict(defer_build=True)

    total: int
    done: int = Field(description="children that have ended, with any status")
    failed: int
    cancelled: int
    running: int = Field(description="children that are running, stalled or cancelling")
    percent: float | None = Field(description="weighted mean of the children's percentages; null may mean `partial`")
    partial: bool = Field(
        False,
        exclude_if=lambda partial: not partial,
        description="whether children are missing because a part of Redis can't be reached; left out if not",
    )


class Operation(BaseModel):
    """A snapshot: an operation's whole state at one position of its log."""

    model_config = ConfigDict(defer_build=True)

    id: str
    kind: str
    title: str | None
    owner: str | None
    tags: list[str]
    metadata: dict[str, Any] = Field(default_factory=dict)
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
    elapsed_ms: int | None = Field(
        None, ge=0, description="milliseconds from the start to the end; while it runs, to its last event"
    )
    expires_at: Time | None
    position: str
    events: int

    _created_metadata: dict[str, Any] = PrivateAttr(default_factory=dict)
    """The metadata that it was created with, which grants look at."""

    @property
    def current(self) -> float | None:
        """How much is done, in the unit of its progress; None: unknown."""
        return number((self.progress or {}).get("current"))

    @property
    def total(self) -> float | None:
        """How much there is to do; None: unknown."""
        return number((self.progress or {}).get("total"))

    @property
    def percent(self) -> float | None:
        """How much is done, 0 to 100; None: unknown."""
        return reported_percent(self.progress or {})

    def __repr__(self) -> str:
        """Return one line: the id, the status and the progress."""
        progress = one_line(self.percent, self.current, self.total, (self.progress or {}).get("unit"))
        error = "" if self.error is None else str(self.error.get("type"))
        shown = ", ".join(part for part in (self.status.value, progress, error) if part)
        return f"<Operation {self.id}: {shown}>"

    __str__ = __repr__


class Children(ChildrenSummary):
    """An operation's children: their summary, and the first of them as a list."""

    operations: list[Operation]


class PublishResult(BaseModel):
    """The response to a publish: the position of the last event, the number of events, and whether to stop."""

    model_config = ConfigDict(defer_build=True)

    position: str
    events: int
    cancel_requested: bool
    cancel: Cancel | None = None
