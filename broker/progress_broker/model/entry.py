"""Publishing without I/O: an event is checked and encoded here, a call of the script is made, and its reply is read.

The store sends such calls for the HTTP edge, the worker SDK for its own process: one way in, two carriers.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from progress_broker.errors import Invalid, TooLarge, refusal
from progress_broker.model import payloads
from progress_broker.model.depth import showable
from progress_broker.model.operation import EVENT_TYPE, RESERVED_TYPES, Answer, Cancel
from progress_broker.model.validation import invalid
from progress_broker.settings import Settings
from progress_broker.storage.keys import OperationKeys
from progress_broker.storage.scripts import PUBLISH, Call


@dataclass(frozen=True, slots=True)
class Entry:
    """An event ready to be stored. `data` is JSON; `status` is the one it brings; of one producer, `seq` goes up."""

    type: str
    data: bytes
    status: str = ""
    producer: str = ""
    seq: int | None = None


_SHAPES: dict[str, TypeAdapter[Any]] = {
    "progress": TypeAdapter(payloads.Progress),
    "log": TypeAdapter(payloads.Log),
    "status": TypeAdapter(payloads.Running),
    "end": TypeAdapter(payloads.Outcome),
}


def encode(type: str, data: object, settings: Settings, *, producer: str = "", seq: int | None = None) -> Entry:
    """Return the entry for an event; raise `Invalid` or `TooLarge`."""
    if type in RESERVED_TYPES:
        raise Invalid(f"an event can't be named {type!r}: EventSource or the server uses it itself", field="type")
    status = ""
    if type in _SHAPES:
        try:
            shaped = _SHAPES[type].validate_python(data)
        except ValidationError as error:
            raise invalid(error) from None
        if isinstance(shaped, payloads.Running | payloads.Outcome):
            status = shaped.status
        if isinstance(shaped, payloads.Outcome):
            data = shaped.model_dump(mode="json")
    return Entry(type, encode_data(type, data, settings), status, producer, seq)


def encode_custom(type: str, data: object, settings: Settings) -> Entry:
    """Return the entry for an event of a publisher's own type; raise `Invalid` or `TooLarge`."""
    if re.fullmatch(EVENT_TYPE, type) is None or type in _SHAPES or type in RESERVED_TYPES:
        raise Invalid(f"an event of your own can't be named {type!r}: use a-z, 0-9 and _ . -", field="type")
    return Entry(type, encode_data(type, data, settings))


def encode_data(type: str, data: object, settings: Settings) -> bytes:
    """Return an event's data as JSON; raise `Invalid` or `TooLarge`."""
    try:
        encoded = orjson.dumps(data)
    except (TypeError, ValueError) as error:
        raise Invalid(f"data can't be written as JSON: {error}", field="data") from None
    if not showable(data):
        raise Invalid("data nests too deep: about 240 levels are allowed", field="data")
    limit = settings.max_progress_bytes if type == "progress" else settings.max_event_bytes
    if len(encoded) > limit:
        raise TooLarge(f"the data of this {type!r} event takes {len(encoded)} bytes; {limit} are allowed", field="data")
    return encoded


def all_keys(keys: OperationKeys) -> tuple[str, ...]:
    """Return the keys that a script which changes an operation is given."""
    lane = keys.lane
    return (keys.snapshot, keys.log, keys.signals, lane.feed, lane.index, lane.expiry, lane.leases)


def publish_call(
    operation: str,
    keys: OperationKeys,
    entries: Iterable[Entry],
    *,
    attempt: int | None = None,
    begins: bool = False,
    created_ms: int | None = None,
    worker: str = "",
    expect: str = "",
    lapsed: bool = False,
    silent_ms: int | None = None,
    traceparent: str = "",
) -> Call:
    """Return the call that appends entries to an operation, all or none; without entries it is a beat of its worker.

    `attempt` fences: an older one than the operation's is refused, and one of an operation of this id that was not
    created at `created_ms`; if it `begins`, it takes over from the one before.
    `expect` is the status it must have, if given, and if `lapsed`, its lease must have lapsed. Its worker may be
    silent for `silent_ms` from now on instead of for its lease; 0 is for who is not its worker.
    """
    number = "" if attempt is None else f"{'+' if begins else ''}{attempt}"
    if created_ms is not None:
        number += f"@{created_ms}"
    expected = f"{expect} lapsed" if lapsed else expect
    args: list[str | bytes] = [operation, number, worker, expected, "" if silent_ms is None else str(silent_ms)]
    for entry in entries:
        args += (
            entry.type,
            entry.data,
            entry.status,
            entry.producer,
            "" if entry.seq is None else str(entry.seq),
        )
    if traceparent:
        args.append(traceparent)
    return Call(PUBLISH, all_keys(keys), args)


def read_answer(reply: Sequence[Any]) -> Answer:
    """Return what a call of create or publish answered; raise the error it stands for if it was refused."""
    check_refusal(reply)
    cancel = read_cancel(reply[3]) if reply[3] else None
    return Answer(position=reply[1].decode(), events=int(reply[2]), cancel_requested=bool(reply[3]), cancel=cancel)


def read_cancel(data: bytes) -> Cancel:
    """Return the cancel that a worker is told; one that can't be read is one all the same."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        said = None
    reason, by = (said.get("reason"), said.get("by")) if isinstance(said, dict) else (None, None)
    return Cancel(reason=reason if isinstance(reason, str) else None, by=by if isinstance(by, str) else None)


def check_refusal(reply: Sequence[Any]) -> None:
    """Raise the error that a script's reply stands for, if it is a refusal."""
    if reply[0] != b"ok":
        raise refusal(reply[0].decode(), reply[1].decode("utf-8", "replace"))
