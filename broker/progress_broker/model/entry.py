"""Entries: a publisher's events, validated, encoded and ready to be stored. No I/O happens here."""

import re
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field

from progress_broker.errors import InvalidInput, TooLarge
from progress_broker.model import payloads
from progress_broker.model.metadata import FIELD, check_size
from progress_broker.model.operation import EVENT_TYPE, RESERVED_TYPES
from progress_broker.model.validation import nestable_json, validated
from progress_broker.settings import Settings

MAX_SEQ = (1 << 53) - 1  # the largest integer that Lua and JavaScript represent exactly


@dataclass(slots=True)  # not frozen, which would triple the cost of making one
class NewEvent:
    """An event ready to be stored.

    `data` is JSON. `status` is the operation's new status, or empty. `seq` increases with each event of a producer.
    `count` is what one of several publishers adds to the operation's count and total by this progress.
    """

    type: str
    data: bytes
    status: str = ""
    producer: str = ""
    seq: int | None = None
    count: tuple[float, float] | None = None

    def numbered(self, producer: str, seq: int) -> "NewEvent":
        """Return the event as that of a producer."""
        return NewEvent(self.type, self.data, self.status, producer, seq, self.count)


_SHAPES: dict[str, type[BaseModel]] = {
    "progress": payloads.Progress,
    "log": payloads.Log,
    "metadata": payloads.MetadataChanges,
    "status": payloads.Running,
    "end": payloads.Outcome,
}


def build_shapes() -> None:
    """Build the validators of events, if that has not happened. It is not possible during interpreter shutdown."""
    for shape in _SHAPES.values():
        shape.model_rebuild()


def encode(type: str, data: object, settings: Settings, *, producer: str = "", seq: int | None = None) -> NewEvent:
    """Return the entry for an event; raise `InvalidInput` or `TooLarge`."""
    if type in RESERVED_TYPES:
        raise InvalidInput(
            f"event type {type!r} is reserved for EventSource or the server: use another name", field="type"
        )
    if type not in _SHAPES and not is_event_type(type):
        raise InvalidInput(f"{type!r} is not an event type: use a-z first, then a-z, 0-9, _ . -", field="type")
    status = ""
    if type in _SHAPES and not _is_plain(type, data):
        shaped = validated(_SHAPES[type], data)
        if isinstance(shaped, payloads.Running | payloads.Outcome):
            status = shaped.status
        if isinstance(shaped, payloads.Outcome):
            data = shaped.model_dump(mode="json")
    return NewEvent(type, encode_data(type, data, settings), status, producer, seq)


def encode_custom(type: str, data: object, settings: Settings) -> NewEvent:
    """Return the entry for an event of a custom type; raise `InvalidInput` or `TooLarge`."""
    if re.fullmatch(EVENT_TYPE, type) is None or type in _SHAPES or type in RESERVED_TYPES:
        raise InvalidInput(
            f"{type!r} can't be the type of a custom event: it is reserved, or it is not made of a-z, 0-9, _ . -",
            field="type",
        )
    return NewEvent(type, encode_data(type, data, settings))


def _is_plain(type: str, data: object) -> bool:
    """Return whether a log line or a progress is valid at first sight. Otherwise its model decides, and costs more."""
    if not isinstance(data, dict):
        return False
    if type == "log":
        stage = data.get("stage")
        known = isinstance(data.get("message"), str) and (stage is None or isinstance(stage, str))
        return known and data.get("level", "info") in _LEVELS
    if type == "progress":
        get = data.get
        return (
            all([number is None or _is_number(number) for number in map(get, _NUMBERS)])  # noqa: C419 - half the time
            and ((percent := get("percent")) is None or (_is_number(percent) and percent <= 100))
            and all([text is None or isinstance(text, str) for text in map(get, _TEXTS)])  # noqa: C419
            and get("stages") is None
            and get("workers") is None
            and get("metrics") is None
        )
    return False


_LEVELS = get_args(payloads.Level)
_NUMBERS = ("current", "total", "rate", "eta_ms")
_TEXTS = ("unit", "message")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < inf  # type: ignore[operator]


def encode_data(type: str, data: object, settings: Settings) -> bytes:
    """Return an event's data as JSON; raise `InvalidInput` or `TooLarge`."""
    try:
        encoded = nestable_json(data)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"data can't be encoded as JSON: {error}", field="data") from None
    if encoded is None:
        raise InvalidInput("data is nested too deeply: at most about 240 levels are allowed", field="data")
    if type == FIELD:
        return check_size(encoded)
    limit = settings.max_progress_bytes if type == "progress" else settings.max_event_bytes
    if len(encoded) > limit:
        option = "max_progress_bytes" if type == "progress" else "max_event_bytes"
        raise TooLarge(
            f"the data of this {type!r} event has {len(encoded)} bytes; {option} allows {limit}", field="data"
        )
    return encoded


class PublishRequest(BaseModel):
    """An event as a publisher sends it over HTTP."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    type: Annotated[str, Field(pattern=f"^{EVENT_TYPE}$")]
    data: Any = None
    producer: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,64}$")] | None = None
    seq: Annotated[int, Field(ge=1, le=MAX_SEQ)] | None = None


@lru_cache(maxsize=256)
def is_event_type(name: str) -> bool:
    """Return whether events may have this type."""
    return re.fullmatch(EVENT_TYPE, name) is not None


_is_producer = lru_cache(maxsize=256)(re.compile(r"[A-Za-z0-9._:-]{1,64}").fullmatch)


def _length(value: dict[str, Any], producer: object, seq: object) -> int:
    """Return how many members an event has if its producer and seq are valid at first sight; otherwise 0."""
    if producer is None or seq is None:
        return 1 + ("data" in value)
    valid = type(producer) is str and _is_producer(producer) and type(seq) is int and 1 <= seq <= MAX_SEQ
    return 3 + ("data" in value) if valid else 0


def read_publish_request(value: object, settings: Settings) -> NewEvent:
    """Return the entry for an event given as plain values; raise `InvalidInput` or `TooLarge`."""
    if type(value) is dict:
        given, data, producer, seq = map(value.get, ("type", "data", "producer", "seq"))
        if type(given) is str and is_event_type(given) and len(value) == _length(value, producer, seq):
            return encode(given, data, settings, producer=producer or "", seq=seq)
    event = validated(PublishRequest, value)
    if (event.producer is None) != (event.seq is None):
        raise InvalidInput("send producer and seq together: they are used to detect repeated events", field="seq")
    return encode(event.type, event.data, settings, producer=event.producer or "", seq=event.seq)
