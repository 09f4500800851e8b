"""The events of streams and of the history as models, for descriptions only: replicas pass the bytes on unread."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from progress_broker.model.operation import (
    BUILT_IN_TYPES,
    EVENT_TYPE,
    RESERVED_TYPES,
    Children,
    Operation,
    OperationId,
    Status,
)
from progress_broker.model.payloads import Log, Outcome, Progress

Milliseconds = Annotated[int, Field(ge=0, description="Milliseconds since 1970.")]
Reset = Literal["trimmed", "lost"]


class _Event(BaseModel):
    """What all events of the log have."""

    operation: OperationId
    n: Annotated[int, Field(ge=1, description="The number of the event in its operation, from 1 without holes.")]
    time: Milliseconds


class SnapshotEnvelope(_Event):
    """The whole operation. With `reset`, events before it are missing: they are no longer kept, or were lost."""

    type: Literal["snapshot"]
    n: Annotated[int, Field(ge=0, description="The number of the event from which the stream goes on; 0: the first.")]
    data: Operation
    reset: Reset | None = None


class ProgressEnvelope(_Event):
    """The whole progress. It replaces the one before."""

    type: Literal["progress"]
    data: Progress


class LogEnvelope(_Event):
    """A line of the log."""

    type: Literal["log"]
    data: Log


class MetadataEnvelope(_Event):
    """Changes of the metadata: each key replaces the one before, and null removes it."""

    type: Literal["metadata"]
    data: dict[str, Any]


class StatusChange(BaseModel):
    """A new status. Which other fields are present depends on it: docs/protocol.md lists them."""

    model_config = ConfigDict(extra="allow")

    status: Status
    attempt: int | None = None
    worker: str | None = None
    reason: str | None = None
    by: str | None = None
    force_cancel_after_s: float | None = None


class StatusEnvelope(_Event):
    """The status changes, without an end."""

    type: Literal["status"]
    data: StatusChange


class NewChild(BaseModel):
    """A child that was created."""

    operation: OperationId
    kind: str
    title: str | None
    weight: float


class ChildEnvelope(_Event):
    """A child was created."""

    type: Literal["child"]
    data: NewChild


class EndEnvelope(_Event):
    """The end: nothing follows."""

    type: Literal["end"]
    data: Outcome


class Malformed(BaseModel):
    """Why an entry of Redis is no event."""

    reason: str
    bytes: int


class MalformedEnvelope(_Event):
    """Stands for an entry of Redis that is no event."""

    type: Literal["malformed"]
    data: Malformed


class CustomEnvelope(_Event):
    """An event of a type that its publisher chose."""

    type: Annotated[
        str,
        Field(
            pattern=f"^{EVENT_TYPE}$",
            json_schema_extra={"not": {"enum": sorted(RESERVED_TYPES | BUILT_IN_TYPES)}},
        ),
    ]
    data: Any


class BriefChild(BaseModel):
    """One child, in brief."""

    id: OperationId
    kind: str
    title: str | None
    status: Status
    percent: float | None
    weight: float
    message: str | None = None


class ChildrenState(Children):
    """The state of the children: their summary, and the first of them."""

    operations: list[BriefChild]  # type: ignore[assignment]


class ChildrenEnvelope(BaseModel):
    """The state of the children. It is not in the log."""

    operation: OperationId
    type: Literal["children"]
    time: Milliseconds
    data: ChildrenState


class _Exact(BaseModel):
    """An object that has nothing else."""

    model_config = ConfigDict(extra="forbid")


class Mark(_Exact):
    """With `live`: all that was missed has been sent."""

    live: Literal[True] | None = None


class BookmarkEnvelope(BaseModel):
    """A new position without an event: all before it that the client asked for has been sent."""

    operation: OperationId
    n: Annotated[int, Field(ge=0, description="The number of the last event before it.")]
    type: Literal["bookmark"]
    time: Milliseconds
    data: Mark


LOGGED = (
    ProgressEnvelope, LogEnvelope, MetadataEnvelope, StatusEnvelope, ChildEnvelope, EndEnvelope, MalformedEnvelope,
    CustomEnvelope
)  # fmt: skip
"""The events that an operation's log may have."""

STREAMED = (SnapshotEnvelope, *LOGGED, ChildrenEnvelope, BookmarkEnvelope)
"""The events that a stream of one operation may have, with an envelope."""


class Reason(_Exact):
    """Why the client has to come back."""

    reason: str


class Nothing(_Exact):
    """Nothing."""


class Followed(_Exact):
    """The operations that a stream of many follows now."""

    operations: list[OperationId]
    reset: Literal["too-many"] | None = None
    lanes_away: list[int] = Field([], description="lanes that can't be reached: their operations follow later")


class Missing(_Exact):
    """An operation that is not there, or can't be read."""

    operation: OperationId
    reason: Literal["not-found", "gone", "unreadable"]


CONTROL: dict[str, type[BaseModel]] = {"reconnect": Reason, "replaced": Nothing, "ping": Nothing}
"""The events of any stream that have no envelope, by name."""

CONTROL_OF_MANY: dict[str, type[BaseModel]] = {**CONTROL, "operations": Followed, "missing": Missing, "bookmark": Mark}
"""The same of a stream of many operations."""


def type_of(envelope: type[BaseModel]) -> str | None:
    """Return the type of event that an envelope is for; None for custom types."""
    schema = envelope.model_json_schema()["properties"]["type"]
    name: str | None = schema.get("const")
    return name
