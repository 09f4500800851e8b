"""What workers send and get over HTTP, as the API's description has it. `progress_broker.workers.wire` reads it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from progress_broker.model.entry import MAX_SEQ
from progress_broker.model.operation import (
    EVENT_TYPE,
    MAX_LABEL_CHARS,
    OPERATION_ID,
    Cancel,
    NewOperation,
    OperationId,
    Status,
)
from progress_broker.workers.wire import MAX_EVENTS, MAX_PUBLISHES, MAX_WATCHED

Whole = Annotated[int, Field(ge=0, le=MAX_SEQ)]
Text = Annotated[str, Field(max_length=MAX_LABEL_CHARS, json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f]*$"})]
Traceparent = Annotated[str, Field(pattern=r"^([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")]
SignalPosition = Annotated[str, Field(pattern=r"^\d{1,20}-\d{1,20}$")]


class WorkerEvent(BaseModel):
    """An event of a worker's publish."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(pattern=f"^{EVENT_TYPE}$")]
    data: Any = None
    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = Field(
        None, description="number of the event by its producer, which goes up; needed if there is one"
    )
    count: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, description="for a progress of one of several processes: what it adds to the count, and to the total"
    )


_AFTER_OF_A_PRODUCER: dict[str, Any] = {
    "if": {"required": ["after"], "properties": {"after": {"type": "integer"}}},
    "then": {"required": ["producer"], "properties": {"producer": {"type": "string"}}},
}


class WorkerPublish(BaseModel):
    """What a worker adds to an operation: all events or none are stored. Without events it is a heartbeat."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_AFTER_OF_A_PRODUCER)

    operation: OperationId
    events: Annotated[list[WorkerEvent], Field(max_length=MAX_EVENTS)] = []
    producer: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = Field(
        None, description="name of the sender, which makes it safe to send the publish again"
    )
    attempt: Whole | None = Field(None, description="the attempt that publishes; `fenced` if a later one has begun")
    begins: bool = Field(False, description="whether the attempt begins with this")
    created_ms: Whole | None = Field(None, description="when the operation was created: its id may be used again")
    worker: Text = Field("", description="name of the worker, from now on")
    expect: Status | Literal[""] = Field("", description="the status that the operation must have")
    lease_ms: Whole | None = Field(None, description="how long the worker may be silent, if longer than its lease")
    observer: bool = Field(False, description="the sender is not its worker: its lease stays as it is")
    traceparent: Traceparent = ""
    after: Whole | None = Field(
        None, description="the last seq of the producer that was said to be stored; `gap` if it no longer is"
    )


WorkerPublishes = Annotated[list[WorkerPublish], Field(max_length=MAX_PUBLISHES)]


class RejectedEvents(BaseModel):
    """The events for which a publish was rejected. Without them, or with smaller ones, it may be sent again."""

    rejected: list[int] = Field(description="their places in `events`, from 0")
    max_event_bytes: int = Field(description="the largest data of an event")
    max_progress_bytes: int = Field(description="the largest data of a `progress`")


class WorkerPublished(BaseModel):
    """The answer to one publish: what it did, or why it was rejected."""

    position: str | None = None
    n: int | None = Field(None, description="how many events the operation has")
    cancel: Cancel | None = Field(None, description="the request to stop, if there was one")
    counts: list[float | None] | None = Field(
        None, description="if several processes count: own count and total, and what the others add to them"
    )
    confirmed: bool | None = Field(
        None, description="of an end, if Redis has replicas: whether one has it, so that it outlives a failover"
    )
    error: str | None = Field(None, description="the error code, if it was rejected")
    detail: str | None = None
    events: RejectedEvents | None = Field(None, description="the events for which it was rejected, if it is some")
    last: int | None = Field(None, description="with `gap`: the last seq of the producer that is stored")


class WorkerCreated(BaseModel):
    """An operation that exists, as its worker needs it."""

    operation: str
    new: bool = Field(description="whether this call created it")
    events: int
    created_ms: int | None
    idle_timeout_s: float | None = Field(description="how long it is kept without events")
    cancel: Cancel | None = Field(description="the cancel of its parent, which has ended this operation too")
    confirmed: bool | None = Field(None, description="if Redis has replicas: whether one has the operation, too")


class WorkerCreation(NewOperation):
    """The request body that creates an operation for a worker."""

    traceparent: Traceparent = ""
    notify: bool = Field(False, description="whether to notify its parent also if the operation exists")


class WorkerViewRequest(BaseModel):
    """The operation that a worker is about to report."""

    model_config = ConfigDict(extra="forbid")

    operation: OperationId


class WorkerViewed(BaseModel):
    """What a worker needs of an operation before it reports."""

    status: Status
    attempt: int
    lease_s: float | None
    progress: dict[str, Any]
    cancel: Cancel | None
    created_ms: int | None
    idle_timeout_s: float | None
    traceparent: str
    counts: list[float | None] | None
    finished_ms: int | None


class SignalsRequest(BaseModel):
    """The operations whose signals a worker wants, each with the position up to which it has read them."""

    model_config = ConfigDict(extra="forbid")

    positions: Annotated[
        dict[Annotated[str, Field(pattern=f"^{OPERATION_ID}$")], SignalPosition],
        Field(min_length=1, max_length=MAX_WATCHED, json_schema_extra={"additionalProperties": False}),
    ]


class WorkerSignal(BaseModel):
    """A signal to a worker. The types `cancel` and `changed` are the broker's own."""

    operation: str
    position: SignalPosition
    type: str
    data: Any
    by: str | None
    attempt: int = Field(description="the attempt that has begun, if the type is `changed`")


class Signals(BaseModel):
    """The signals after the positions. Empty if none came in time."""

    signals: list[WorkerSignal]
