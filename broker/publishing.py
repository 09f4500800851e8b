"""Publishing without I/O: an event is checked and encoded here, a call of the script is made, and its reply is read.

The store sends such calls for the HTTP edge, the worker SDK for its own process: one way in, two carriers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from broker import models
from broker.depth import showable
from broker.errors import Invalid, TooLarge, refusal
from broker.keys import OperationKeys
from broker.models import Answer
from broker.scripts import CREATE, DELETE, PUBLISH, Call
from broker.settings import Settings

MAX_SEQ = (1 << 53) - 1  # what Lua and JavaScript count exactly


@dataclass(frozen=True, slots=True)
class Entry:
    """An event ready to be stored. `data` is JSON; `status` is the one it brings; of one producer, `seq` goes up."""

    type: str
    data: bytes
    status: str = ""
    producer: str = ""
    seq: int | None = None


class Publication(BaseModel):
    """An event as a publisher sends it over HTTP."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(pattern=f"^{models.EVENT_TYPE}$")]
    data: Any = None
    producer: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = None
    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = None


_SHAPES: dict[str, TypeAdapter[Any]] = {
    "progress": TypeAdapter(models.Progress),
    "log": TypeAdapter(models.Log),
    "status": TypeAdapter(models.Running),
    "end": TypeAdapter(models.Outcome),
}


def read_json(body: bytes) -> Any:
    """Return what a JSON text says; raise `Invalid` unless it is one (RFC 8259, in UTF-8)."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"this is not JSON: {error}") from None


def invalid(error: ValidationError) -> Invalid:
    """Return a validation failure as the caller should read it: the first fault, and the field it is in."""
    fault = error.errors(include_input=False, include_url=False)[0]
    return located(fault["loc"], fault["msg"])


def located(location: Sequence[int | str], message: str) -> Invalid:
    """Return the fault of a field, given by the path to it."""
    field = ".".join(map(str, location))
    return Invalid(f"{field}: {message}" if field else message, field=field or None)


def read_publication(value: object, settings: Settings) -> Entry:
    """Return the entry for an event given as plain values; raise `Invalid` or `TooLarge`."""
    try:
        event = Publication.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None
    if (event.producer is None) != (event.seq is None):
        raise Invalid("producer and seq come together: they tell a repeat from a new event", field="seq")
    return encode(event.type, event.data, settings, producer=event.producer or "", seq=event.seq)


def encode(type: str, data: object, settings: Settings, *, producer: str = "", seq: int | None = None) -> Entry:
    """Return the entry for an event; raise `Invalid` or `TooLarge`."""
    if type in models.RESERVED_TYPES:
        raise Invalid(f"an event can't be named {type!r}: EventSource or the server uses it itself", field="type")
    status = ""
    if type in _SHAPES:
        try:
            shaped = _SHAPES[type].validate_python(data)
        except ValidationError as error:
            raise invalid(error) from None
        if isinstance(shaped, models.Running | models.Outcome):
            status = shaped.status
        if isinstance(shaped, models.Outcome):
            data = shaped.model_dump(mode="json")
    try:
        encoded = orjson.dumps(data)
    except (TypeError, ValueError) as error:
        raise Invalid(f"data can't be written as JSON: {error}", field="data") from None
    if not showable(data):
        raise Invalid("data nests too deep: about 240 levels are allowed", field="data")
    limit = settings.max_progress_bytes if type == "progress" else settings.max_event_bytes
    if len(encoded) > limit:
        raise TooLarge(f"the data of this {type!r} event takes {len(encoded)} bytes; {limit} are allowed", field="data")
    return Entry(type, encoded, status, producer, seq)


def _all_keys(keys: OperationKeys) -> tuple[str, ...]:
    lane = keys.lane
    return (keys.snapshot, keys.log, keys.signals, lane.feed, lane.index, lane.expiry, lane.leases)


def publish_call(
    operation: str,
    keys: OperationKeys,
    entries: Iterable[Entry],
    *,
    attempt: int | None = None,
    worker: str = "",
    expect: str = "",
) -> Call:
    """Return the call that appends entries to an operation, all or none.

    `attempt` fences: an older one than the operation's is refused. `expect` is the status it must have, if given.
    """
    args: list[str | bytes] = [operation, "" if attempt is None else str(attempt), worker, expect]
    for entry in entries:
        args += (
            entry.type,
            entry.data,
            entry.status,
            entry.producer,
            "" if entry.seq is None else str(entry.seq),
        )
    return Call(PUBLISH, _all_keys(keys), args)


def create_call(operation: str, keys: OperationKeys, new: models.NewOperation, settings: Settings) -> Call:
    """Return the call that creates an operation, unless it exists with the same body."""
    spec = new.model_dump(mode="json", exclude={"id"})
    if "lease_s" not in new.model_fields_set:
        spec["lease_s"] = settings.lease_s
    listed = [
        ("kind", new.kind),
        ("owner", new.owner),
        ("parent", new.parent),
        *(("tag", tag) for tag in new.tags),
    ]
    indexes = "\n".join(dict.fromkeys(f"{field}:{value}" for field, value in listed if value))
    limits = (
        settings.history_length,
        settings.feed_length,
        round(settings.retention_s * 1000),
        round(settings.idle_limit_s * 1000),
    )
    args = (
        operation,
        orjson.dumps(spec, option=orjson.OPT_SORT_KEYS),
        indexes,
        " ".join(map(str, limits)),
        str(round((spec["lease_s"] or 0) * 1000)),
    )
    return Call(CREATE, _all_keys(keys), args)


def delete_call(operation: str, keys: OperationKeys, *, force: bool, settings: Settings) -> Call:
    """Return the call that deletes an operation and leaves a tombstone."""
    args = (operation, "1" if force else "0", str(round(settings.tombstone_s * 1000)))
    return Call(DELETE, _all_keys(keys), args)


def read_answer(reply: Sequence[Any]) -> Answer:
    """Return what a call of create or publish answered; raise the error it stands for if it was refused."""
    check_refusal(reply)
    return Answer(position=reply[1].decode(), events=int(reply[2]), cancel_requested=bool(reply[3]))


def check_refusal(reply: Sequence[Any]) -> None:
    """Raise the error that a script's reply stands for, if it is a refusal."""
    if reply[0] != b"ok":
        raise refusal(reply[0].decode(), reply[1].decode())
