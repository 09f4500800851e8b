"""What a socket and its client say to each other beside events, as JSON objects.

A client's messages have a `type`. The server's have an `event` and no `data`, which every event has.
"""

import random
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.errors import Invalid, TooLarge
from progress_broker.model.operation import OperationId
from progress_broker.model.validation import invalid, read_json
from progress_broker.settings import Settings
from progress_server.http.cancellation import CancelRequest
from progress_server.sse.query import StreamQuery

MAX_MESSAGE_BYTES = 16_384

Ref = str | int | None
"""What a client names a request by, to know the answer to it."""


def message(event: str, **members: object) -> str:
    """Return a message; what is None is left out."""
    told = {name: value for name, value in members.items() if value is not None}
    return orjson.dumps({"event": event, **told}).decode()


def retry_ms(settings: Settings) -> int:
    """Return how soon a client is to connect again: a different time for each, as many may be told at one moment."""
    return round(settings.retry_ms * random.uniform(0.5, 1.5))


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ref: Annotated[str, Field(max_length=128)] | Annotated[int, Field(ge=-(2**53), le=2**53)] | None = None


class Subscribe(_Request):
    """Follow an operation; one that is followed already is begun anew. What is asked of a stream in its query."""

    type: Literal["subscribe"]
    operation: OperationId
    last_event_id: str | None = None
    beginning: Literal["start"] | None = Field(None, alias="from")
    types: list[str] | None = None
    interval_ms: int = 0
    wait_s: float = 0
    children: bool = False

    def query(self) -> StreamQuery:
        """Return it as the query of a stream."""
        asked: dict[str, Any] = self.model_dump(include={"last_event_id", "interval_ms", "wait_s", "children"})
        asked |= {"from": self.beginning, "types": None if self.types is None else ",".join(self.types)}
        try:
            return StreamQuery.model_validate(asked)
        except ValidationError as error:
            raise invalid(error) from None


class Unsubscribe(_Request):
    """Follow it no more."""

    type: Literal["unsubscribe"]
    operation: OperationId


class Cancel(CancelRequest, _Request):
    """Ask an operation's worker to stop. On a socket of one operation it need not be named."""

    type: Literal["cancel"]
    operation: OperationId | None = None


class Ping(_Request):
    """Ask whether anybody is there."""

    type: Literal["ping"]


Request = Subscribe | Unsubscribe | Cancel | Ping
_REQUESTS: dict[str, type[Request]] = {
    "subscribe": Subscribe, "unsubscribe": Unsubscribe, "cancel": Cancel, "ping": Ping
}  # fmt: skip


def read_request(text: str | None) -> Request:
    """Return what a message asks; raise `Invalid` or `TooLarge`."""
    if text is None:
        raise Invalid("messages are text, of JSON: this one was binary")
    if len(text) > MAX_MESSAGE_BYTES:
        raise TooLarge(f"a message is over {MAX_MESSAGE_BYTES} bytes")
    said = read_json(text.encode())
    type = said.get("type") if isinstance(said, dict) else None
    if not isinstance(type, str) or type not in _REQUESTS:
        raise Invalid(f"a message is a JSON object whose `type` is one of {', '.join(_REQUESTS)}", field="type")
    try:
        return _REQUESTS[type].model_validate(said)
    except ValidationError as error:
        raise invalid(error) from None


def named_in(text: str | None) -> tuple[str | None, Ref]:
    """Return the operation and the `ref` of a message that is no request, as far as it has them."""
    try:
        said = read_json((text or "").encode()) if len(text or "") <= MAX_MESSAGE_BYTES else None
    except Invalid:
        said = None
    if not isinstance(said, dict):
        return None, None
    operation, ref = said.get("operation"), said.get("ref")
    known = isinstance(operation, str) and len(operation) <= 128
    return operation if known else None, ref if isinstance(ref, str | int) and len(str(ref)) <= 128 else None
