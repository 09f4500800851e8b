"""The JSON between a worker and a server, for both sides. docs/protocol.md describes it. No I/O happens here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from progress_broker.errors import LANE_AWAY, BrokerError, Gap, InvalidInput, LaneAway, RejectedEvents, rejection
from progress_broker.model.entry import MAX_SEQ, NewEvent, encode, encode_data, is_event_type
from progress_broker.model.operation import MAX_LABEL_CHARS, Cancel, Status, is_id
from progress_broker.model.publish import Counts, Created, Publish, Published
from progress_broker.operations.worker_view import WorkerView
from progress_broker.settings import Settings
from progress_broker.workers.signals import ArrivedSignal, SignalPosition

MAX_PUBLISHES: Final = 1000
"""How many publishes one request may have."""
MAX_WATCHED: Final = 10_000
"""Of how many operations one request may await signals."""
MAX_EVENTS: Final = 1000
"""How many events one publish may have. A publish is one script call, and Redis runs nothing else during it."""

_FIELDS: Final = frozenset(
    {
        "operation",
        "events",
        "producer",
        "attempt",
        "begins",
        "created_ms",
        "worker",
        "expect",
        "lease_ms",
        "observer",
        "traceparent",
        "after",
    }
)
_EVENT_FIELDS: Final = frozenset({"type", "data", "seq", "count"})
_STATUSES: Final = frozenset(map(str, Status))
_PRODUCER = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_POSITION = re.compile(r"(\d{1,20})-(\d{1,20})")


# A publish


def write_publish(publish: Publish) -> dict[str, Any]:
    """Return a publish as JSON values. Its entries are of one producer, or of none, and `after` of the same."""
    entries = publish.entries
    value: dict[str, Any] = {"operation": publish.operation}
    if entries:
        value["events"] = [_write_event(entry) for entry in entries]
        if entries[0].producer:
            value["producer"] = entries[0].producer
    if publish.after is not None:
        value["producer"], value["after"] = publish.after
    optional = {
        "attempt": publish.attempt,
        "begins": publish.begins or None,
        "created_ms": publish.created_ms,
        "worker": publish.worker or None,
        "expect": publish.expect or None,
        "lease_ms": publish.lease_ms,
        "observer": publish.as_observer or None,
        "traceparent": publish.traceparent or None,
    }
    return value | {name: given for name, given in optional.items() if given is not None}


def _write_event(entry: NewEvent) -> dict[str, Any]:
    event: dict[str, Any] = {"type": entry.type, "data": orjson.Fragment(entry.data)}
    if entry.seq is not None:
        event["seq"] = entry.seq
    if entry.count is not None:
        event["count"] = entry.count
    return event


def read_publish(value: object, settings: Settings) -> Publish | BrokerError:
    """Return the publish that a worker sent; or the error if it lacks something, or the data of an event are invalid.

    Raises `InvalidInput` if it has not the form of a publish.
    """
    if not isinstance(value, dict):
        raise InvalidInput("a publish must be a JSON object")
    if not value.keys() <= _FIELDS:
        name = min(value.keys() - _FIELDS)
        raise InvalidInput(f"{name[:64]}: a publish has no such field", field=name[:64])
    operation = read_operation(value)
    begins = _flag(value, "begins")
    events, producer = value.get("events", ()), value.get("producer")
    if not isinstance(events, list | tuple) or len(events) > MAX_EVENTS:
        raise InvalidInput(f"events: must be a list of at most {MAX_EVENTS} events", field="events")
    traceparent = read_traceparent(value)
    if producer is not None and not (isinstance(producer, str) and _PRODUCER.fullmatch(producer)):
        raise InvalidInput("producer: must be 1 to 64 of A-Z, a-z, 0-9, . _ : -", field="producer")
    for event in events:
        _check_event(event)
    expect = _text(value, "expect")
    if expect and expect not in _STATUSES:
        raise InvalidInput("expect: must be a status", field="expect")
    after = _whole(value, "after")
    if after is not None and producer is None:
        return InvalidInput("after: needs a producer, whose seq it is", field="after")
    publish = Publish(
        operation,
        (),
        _whole(value, "attempt"),
        begins,
        _whole(value, "created_ms"),
        _text(value, "worker"),
        expect,
        _whole(value, "lease_ms"),
        _flag(value, "observer"),
        traceparent,
        None if after is None or producer is None else (producer, after),
    )
    try:
        return publish._replace(entries=[_read_event(event, producer, settings, begins=begins) for event in events])
    except BrokerError as error:
        rejected = [at for at, event in enumerate(events) if _is_rejected(event, producer, settings, begins=begins)]
        error.events = RejectedEvents(tuple(rejected), settings.max_event_bytes, settings.max_progress_bytes)
        return error


def _is_rejected(event: dict[str, Any], producer: str | None, settings: Settings, *, begins: bool) -> bool:
    try:
        _read_event(event, producer, settings, begins=begins)
    except BrokerError:
        return True
    return False


def _check_event(event: object) -> None:
    """Raise `InvalidInput` if this has not the form of an event."""
    if not isinstance(event, dict) or not event.keys() <= _EVENT_FIELDS:
        raise InvalidInput("events: each must be a JSON object of type, data, seq and count", field="events")
    type_, seq, count = event.get("type"), event.get("seq"), event.get("count")
    if not isinstance(type_, str) or not is_event_type(type_):
        raise InvalidInput("type: must be 1 to 64 of a-z, 0-9, . _ -, and begin with a letter", field="events")
    if not (seq is None or (_is_whole(seq) and 1 <= seq <= MAX_SEQ)):
        raise InvalidInput("seq: must be a whole number from 1", field="events")
    if not (count is None or (isinstance(count, list) and len(count) == 2 and all(map(_is_number, count)))):
        raise InvalidInput("count: must be two numbers: what was added to the count, and to the total", field="events")


def _is_whole(value: object) -> bool:
    """Return whether a number is whole: in JSON, 1.0 is."""
    return type(value) is int or (type(value) is float and value.is_integer())


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _read_event(event: dict[str, Any], producer: str | None, settings: Settings, *, begins: bool) -> NewEvent:
    """Return an event. A worker's `status` also says which attempt has begun, and by whom."""
    type, data, seq, count = event["type"], event.get("data"), event.get("seq"), event.get("count")
    if type == "status" and isinstance(data, dict):
        entry = _read_status(data, settings, begins=begins)
    else:
        entry = encode(type, data, settings)
    if (producer is None) != (seq is None):
        raise InvalidInput("seq: every event has one, if there is a producer, and none otherwise", field="events")
    if producer is not None and seq is not None:
        entry.producer, entry.seq = producer, int(seq)
    if count is not None:
        entry.count = float(count[0]), float(count[1])
    return entry


def _read_status(data: dict[str, Any], settings: Settings, *, begins: bool) -> NewEvent:
    status, attempt, worker = data.get("status"), data.get("attempt", 1), data.get("worker", "")
    known = data.keys() <= {"status", "attempt", "worker"} and type(attempt) is int and isinstance(worker, str)
    # An attempt that takes over an operation which was cancelled leaves its status as it is.
    if not known or not (status == Status.RUNNING or (begins and status == Status.CANCELLING)):
        raise InvalidInput("events: a status must be running, with attempt and worker at most", field="events")
    encoded = encode_data("status", data, settings)
    return NewEvent("status", encoded, Status.RUNNING.value if status == Status.RUNNING else "")


def read_operation(value: Mapping[str, Any]) -> str:
    """Return the id in the field `operation`; raise `InvalidInput`."""
    operation = value.get("operation")
    if not isinstance(operation, str) or not is_id(operation):
        raise InvalidInput("operation: must be the id of an operation", field="operation")
    return operation


def read_traceparent(value: Mapping[str, Any]) -> str:
    """Return the field `traceparent`, which may be left out; raise `InvalidInput`."""
    traceparent = value.get("traceparent", "")
    if isinstance(traceparent, str) and (not traceparent or _TRACEPARENT.fullmatch(traceparent)):
        return traceparent
    raise InvalidInput("traceparent: must be that of a W3C trace context", field="traceparent")


def read_notify(value: Mapping[str, Any]) -> bool:
    """Return the field `notify` of a creation, which may be left out; raise `InvalidInput`."""
    return _flag(value, "notify")


def _whole(value: Mapping[str, Any], name: str) -> int | None:
    number = value.get(name)
    if number is None:
        return None
    if _is_whole(number) and 0 <= number <= MAX_SEQ:
        return int(number)
    raise InvalidInput(f"{name}: must be a whole number", field=name)


def _flag(value: Mapping[str, Any], name: str) -> bool:
    flag = value.get(name, False)
    if isinstance(flag, bool):
        return flag
    raise InvalidInput(f"{name}: must be true or false", field=name)


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name, "")
    if isinstance(text, str) and len(text) <= MAX_LABEL_CHARS and text.isprintable():
        return text
    raise InvalidInput(f"{name}: must be a text of at most {MAX_LABEL_CHARS} printable characters", field=name)


# Its answer


def write_answer(answer: Published | BrokerError) -> dict[str, Any]:
    """Return the answer to a publish as JSON values."""
    if isinstance(answer, BrokerError):
        return write_error(answer)
    value: dict[str, Any] = {"position": answer.position, "n": answer.events}
    if answer.cancel is not None:
        value["cancel"] = _write_cancel(answer.cancel)
    if answer.counts is not None:
        value["counts"] = list(answer.counts)
    if answer.confirmed is not None:
        value["confirmed"] = answer.confirmed
    return value


def read_answer(value: Mapping[str, Any]) -> Published | BrokerError:
    """Return the answer to a publish."""
    if "error" in value:
        away = value.get("reason") == LANE_AWAY
        error = LaneAway(value["detail"]) if away else rejection(value["error"], value["detail"])
        if isinstance(error, Gap):
            error.last = value["last"]
        if events := value.get("events"):
            error.events = RejectedEvents(
                tuple(events["rejected"]), events["max_event_bytes"], events["max_progress_bytes"]
            )
        return error
    return Published(value["position"], value["n"], read_cancel(value), _read_counts(value), value.get("confirmed"))


def read_answers(values: Sequence[Mapping[str, Any]], number: int) -> list[Published | BrokerError]:
    """Return the answers to a number of publishes."""
    return [read_answer(value) for value, _ in zip(values, range(number), strict=True)]


def write_error(error: BrokerError) -> dict[str, Any]:
    """Return an error that concerns one operation of several as JSON values."""
    value: dict[str, Any] = {"error": error.code, "detail": error.detail}
    if isinstance(error, LaneAway):
        value["reason"] = LANE_AWAY
    if isinstance(error, Gap):
        value["last"] = error.last
    if error.events is not None:
        numbers, event_bytes, progress_bytes = error.events
        value["events"] = {
            "rejected": numbers,
            "max_event_bytes": event_bytes,
            "max_progress_bytes": progress_bytes,
        }
    return value


def _write_cancel(cancel: Cancel | None) -> dict[str, Any] | None:
    return None if cancel is None else {"reason": cancel.reason, "by": cancel.by}


def read_cancel(value: Mapping[str, Any]) -> Cancel | None:
    """Return the field `cancel`."""
    cancel = value.get("cancel")
    return None if cancel is None else Cancel(reason=cancel.get("reason"), by=cancel.get("by"))


def _read_counts(value: Mapping[str, Any]) -> Counts | None:
    counts = value.get("counts")
    return None if counts is None else Counts(*counts)


# What a worker reads


def write_created(operation: str, created: Created) -> dict[str, Any]:
    """Return an operation that exists as JSON values."""
    value = {"operation": operation, **created._asdict(), "cancel": _write_cancel(created.cancel)}
    if created.confirmed is None:
        del value["confirmed"]
    return value


def read_created(value: Mapping[str, Any]) -> Created:
    """Return an operation that exists."""
    return Created(
        value["new"],
        value["events"],
        value["created_ms"],
        value["idle_timeout_s"],
        read_cancel(value),
        value.get("confirmed"),
    )


def write_view(view: WorkerView) -> dict[str, Any]:
    """Return an operation's state as JSON values."""
    counts = None if view.counts is None else list(view.counts)
    return view._asdict() | {"cancel": _write_cancel(view.cancel), "counts": counts}


def read_view(value: Mapping[str, Any]) -> WorkerView:
    """Return an operation's state. Fields of later releases are passed over."""
    known = {name: value[name] for name in WorkerView._fields if name in value}
    known |= {"status": Status(value["status"]), "cancel": read_cancel(value), "counts": _read_counts(value)}
    return WorkerView(**known)


def write_positions(positions: Mapping[str, SignalPosition]) -> dict[str, Any]:
    """Return positions of signals as JSON values."""
    return {operation: f"{ms}-{seq}" for operation, (ms, seq) in positions.items()}


def read_positions(value: object) -> dict[str, SignalPosition]:
    """Return the position up to which signals were read, for each operation; raise `InvalidInput`."""
    if not isinstance(value, dict) or not 0 < len(value) <= MAX_WATCHED:
        raise InvalidInput(f"positions: must be an object of 1 to {MAX_WATCHED} operations", field="positions")
    positions: dict[str, SignalPosition] = {}
    for operation, position in value.items():
        found = _POSITION.fullmatch(position) if isinstance(position, str) else None
        if found is None or not is_id(operation):
            raise InvalidInput("positions: each must be an operation's id, with a position like 0-0", field="positions")
        positions[operation] = int(found[1]), int(found[2])
    return positions


def write_signal(signal: ArrivedSignal) -> dict[str, Any]:
    """Return a signal as JSON values."""
    ms, seq = signal.position
    return signal._asdict() | {"position": f"{ms}-{seq}", "data": _fragment(signal.data)}


def read_signals(value: Mapping[str, Any]) -> list[ArrivedSignal]:
    """Return the signals of a response."""
    return [_read_signal(one) for one in value["signals"]]


def _read_signal(value: Mapping[str, Any]) -> ArrivedSignal:
    ms, _, seq = value["position"].partition("-")
    data, by, attempt = orjson.dumps(value["data"]), value.get("by"), value.get("attempt", 0)
    return ArrivedSignal(value["operation"], (int(ms), int(seq)), value["type"], data, by, attempt)


def _fragment(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None  # other programs may send any data
