"""Entries: what a publisher says, checked and encoded, ready to be stored. No I/O happens here."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.errors import Invalid, TooLarge
from progress_broker.model import payloads
from progress_broker.model.operation import EVENT_TYPE, RESERVED_TYPES
from progress_broker.model.validation import invalid, showable
from progress_broker.settings import Settings

MAX_SEQ = (1 << 53) - 1  # what Lua and JavaScript count exactly


@dataclass(frozen=True, slots=True)
class Entry:
    """An event ready to be stored. `data` is JSON; `status` is the one it brings; of one producer, `seq` goes up."""

    type: str
    data: bytes
    status: str = ""
    producer: str = ""
    seq: int | None = None


_SHAPES: dict[str, type[BaseModel]] = {
    "progress": payloads.Progress,
    "log": payloads.Log,
    "status": payloads.Running,
    "end": payloads.Outcome,
}


def build_shapes() -> None:
    """Build what events are checked with, unless it was. While its interpreter ends, a process can build nothing."""
    for shape in _SHAPES.values():
        shape.model_rebuild()


def encode(type: str, data: object, settings: Settings, *, producer: str = "", seq: int | None = None) -> Entry:
    """Return the entry for an event; raise `Invalid` or `TooLarge`."""
    if type in RESERVED_TYPES:
        raise Invalid(f"an event can't be named {type!r}: EventSource or the server uses it itself", field="type")
    status = ""
    if type in _SHAPES:
        try:
            shaped = _SHAPES[type].model_validate(data)
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


class Publication(BaseModel):
    """An event as a publisher sends it over HTTP."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    type: Annotated[str, Field(pattern=f"^{EVENT_TYPE}$")]
    data: Any = None
    producer: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = None
    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = None


def read_publication(value: object, settings: Settings) -> Entry:
    """Return the entry for an event given as plain values; raise `Invalid` or `TooLarge`."""
    try:
        event = Publication.model_validate(value)
    except ValidationError as error:
        raise invalid(error) from None
    if (event.producer is None) != (event.seq is None):
        raise Invalid("producer and seq come together: they tell a repeat from a new event", field="seq")
    return encode(event.type, event.data, settings, producer=event.producer or "", seq=event.seq)
