"""The server's messages over a WebSocket that are no events, as models, for the description only."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from progress_broker.model.operation import OperationId, Status

Ref = Annotated[str | int | None, Field(description="The `ref` of the request that this answers.")]
RetryMs = Annotated[int, Field(ge=0, description="How soon to connect again.")]


class Open(BaseModel):
    """The first message."""

    event: Literal["open"]
    retry_ms: RetryMs
    connection: Annotated[str, Field(description="The connection's name, as in the server's log.")]


class KeepAlive(BaseModel):
    """The connection is alive."""

    event: Literal["ping"]


class Subscribed(BaseModel):
    """An operation is followed from here on."""

    event: Literal["subscribed"]
    operation: OperationId
    ref: Ref = None


class Unsubscribed(BaseModel):
    """Nothing more of an operation will come."""

    event: Literal["unsubscribed"]
    operation: OperationId
    reason: Literal["ended", "gone", "not-found", "client"]
    ref: Ref = None


class CancelAccepted(BaseModel):
    """A cancel was accepted."""

    event: Literal["cancelled"]
    operation: OperationId
    status: Status
    ref: Ref = None


class Pong(BaseModel):
    """The answer to `ping`."""

    event: Literal["pong"]
    ref: Ref = None


class Rejected(BaseModel):
    """What was rejected, and why. With `retry_ms` a retry may succeed."""

    event: Literal["problem"]
    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    operation: str | None = None
    ref: Ref = None
    retry_ms: RetryMs | None = None


class Replaced(BaseModel):
    """The last message: a newer connection has taken this one's place. Don't come back."""

    event: Literal["replaced"]


class Reconnect(BaseModel):
    """The last message: come back with the positions."""

    event: Literal["reconnect"]
    reason: str
    retry_ms: RetryMs


MESSAGES = (Open, KeepAlive, Subscribed, Unsubscribed, CancelAccepted, Pong, Rejected, Replaced, Reconnect)
