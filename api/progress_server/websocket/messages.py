"""The messages between a WebSocket and its client, other than events. They are JSON objects.

A client's messages have a `type`. The server's messages have an `event` and no `data`; events always have `data`.
"""

import random
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from progress_broker.errors import InvalidInput, TooLarge
from progress_broker.model.operation import OperationId
from progress_broker.model.validation import read_json, validated
from progress_broker.settings import Settings
from progress_server.http.cancellation import CancelRequest
from progress_server.sse.query import StreamQuery

MAX_MESSAGE_BYTES = 16_384

Ref = str | int | None
"""A client's name for a request. The response repeats it, so the client can match them."""


def message(event: str, **members: object) -> str:
    """Return a message as JSON. Members that are None are left out."""
    present = {name: value for name, value in members.items() if value is not None}
    return orjson.dumps({"event": event, **present}).decode()


def retry_ms(settings: Settings) -> int:
    """Return a reconnect delay with jitter, so that many clients do not reconnect at the same moment."""
    return round(settings.retry_ms * random.uniform(0.5, 1.5))


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ref: Annotated[str, Field(max_length=128)] | Annotated[int, Field(ge=-(2**53), le=2**53)] | None = None


class Subscribe(_Request):
    """Follow an operation, with the parameters of a stream's query.

    If the operation is already followed, the new subscription replaces the old one.
    """

    type: Literal["subscribe"]
    operation: OperationId
    last_event_id: str | None = None
    beginning: Literal["start"] | None = Field(None, alias="from")
    types: list[str] | None = None
    interval_ms: int = 0
    wait_s: float = 0
    children: bool = False

    def query(self) -> StreamQuery:
        """Return the parameters as the query of a stream."""
        options: dict[str, Any] = self.model_dump(include={"last_event_id", "interval_ms", "wait_s", "children"})
        options |= {"from": self.beginning, "types": None if self.types is None else ",".join(self.types)}
        return validated(StreamQuery, options)


class Unsubscribe(_Request):
    """Stop following an operation."""

    type: Literal["unsubscribe"]
    operation: OperationId


class CancelMessage(CancelRequest, _Request):
    """Ask an operation's worker to stop. On a WebSocket of one operation, `operation` may be omitted."""

    type: Literal["cancel"]
    operation: OperationId | None = None


class Ping(_Request):
    """Ask for a `pong`, to check the connection."""

    type: Literal["ping"]


Request = Subscribe | Unsubscribe | CancelMessage | Ping
_REQUESTS: dict[str, type[Request]] = {
    "subscribe": Subscribe, "unsubscribe": Unsubscribe, "cancel": CancelMessage, "ping": Ping
}  # fmt: skip


def read_request(text: str | None) -> Request:
    """Return the request in a message; raise `InvalidInput` if it is not valid, or `TooLarge`."""
    if text is None:
        raise InvalidInput("this message is binary, but messages must be JSON text")
    if len(text) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"the message exceeds {MAX_MESSAGE_BYTES} bytes; send a smaller one")
    content = read_json(text.encode())
    type = content.get("type") if isinstance(content, dict) else None
    if not isinstance(type, str) or type not in _REQUESTS:
        raise InvalidInput(
            f"a message must be a JSON object whose `type` is one of {', '.join(_REQUESTS)}", field="type"
        )
    return validated(_REQUESTS[type], content)


def named_in(text: str | None) -> tuple[str | None, Ref]:
    """Return the operation and the `ref` of an invalid message, if they are present and short enough."""
    try:
        content = read_json((text or "").encode()) if len(text or "") <= MAX_MESSAGE_BYTES else None
    except InvalidInput:
        content = None
    if not isinstance(content, dict):
        return None, None
    operation, ref = content.get("operation"), content.get("ref")
    known = isinstance(operation, str) and len(operation) <= 128
    return operation if known else None, ref if isinstance(ref, str | int) and len(str(ref)) <= 128 else None
