"""What happens to an operation, as typed events.

Each is a class, so that `match` tells them apart:

    >>> from progress_client import End, Log, Progress
    >>> def show(event):
    ...     match event:
    ...         case Progress(percent=float(percent)):
    ...             return f"{percent:.0f} %"
    ...         case Log(level="error", message=message):
    ...             return message
    ...         case End(status=status):
    ...             return status.value
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from pydantic import ValidationError

from progress_broker.errors import ServerUnavailable
from progress_broker.model.operation import Operation, Status
from progress_broker.model.progress import number, reported_percent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    operation: str
    """The operation's id."""
    n: int
    """The number of the event in its operation, from 1."""
    position: str
    """Where the event is in the operation's log: `watch(…, after=position)` yields what follows it."""
    at: datetime
    """When it was published, in UTC."""
    type: str
    """The name of its kind, such as `progress`."""
    data: Any = field(repr=False)
    """Its data, as it was published."""
    json: bytes = field(repr=False, compare=False)
    """The whole event as the API sends it: a JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(_Event):
    """The whole operation, where `watch` begins."""

    state: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset(_Event):
    """Events were lost before this one. What was known of the operation is to be replaced by its state.

    Forget the events that were told after `n`: all that are stored after it follow. The state may be newer than some of
    these: `state.events` says how many events it has.
    """

    reason: str
    """Why: `trimmed` (no longer kept) or `lost` (Redis lost them, or never had the position)."""
    state: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(_Event):
    """The whole progress; it replaces the one before. `data` has also what its worker added."""

    current: float | None
    """How much is done, in `unit`."""
    total: float | None
    """How much there is to do."""
    percent: float | None
    """How much is done, 0 to 100."""
    unit: str | None
    message: str | None
    rate: float | None
    """Units per second."""
    eta_ms: float | None
    """The estimated remaining time, in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log(_Event):
    """A line of the log."""

    message: str
    level: str
    """`debug`, `info`, `warning`, `error` or `critical`."""
    stage: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataChange(_Event):
    """The operation's metadata changes."""

    changes: dict[str, Any]
    """Each key replaces the one before, and None removes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange(_Event):
    """The operation has another status, or another attempt of it has begun."""

    status: Status
    attempt: int | None
    """The number of the attempt that begins; None: it is the same one."""
    reason: str | None
    """Why the operation was asked to stop, if it was."""
    by: str | None
    """Who asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child(_Event):
    """The operation has a new child."""

    child: str
    """The child's id."""
    kind: str | None
    title: str | None
    weight: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class End(_Event):
    """The operation has ended. Nothing follows."""

    status: Status
    result: Any
    error: dict[str, Any] | None
    """Why it did not succeed: `type`, `message`, and what its worker added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(_Event):
    """An event of a type that its publisher made up; or of the type `malformed`, in place of one that is invalid."""


Event = Snapshot | Reset | Progress | Log | MetadataChange | StatusChange | Child | End | Custom


def read_event(envelope: bytes, position: str = "") -> Event:
    """Return the event of an envelope. A snapshot without an id has its operation's position."""
    try:
        said = orjson.loads(envelope)
        known = {
            "operation": said["operation"],
            "n": said["n"],
            "position": position,
            "at": datetime.fromtimestamp(said["time"] / 1000, UTC),
            "type": said["type"],
            "data": said["data"],
            "json": envelope,
        }
        return _typed(known, said.get("reset"))
    except (ValueError, TypeError, LookupError, ValidationError) as error:
        raise ServerUnavailable(f"the server sent an event that can't be read: {error}") from None


def _typed(known: dict[str, Any], reset: str | None) -> Event:
    type, data = known["type"], known["data"]
    if type == "snapshot":
        state = Operation.model_validate(data)
        known["position"] = known["position"] or state.position
        return Snapshot(**known, state=state) if reset is None else Reset(**known, reason=reset, state=state)
    if isinstance(data, dict) and (fields := _FIELDS.get(type)) is not None:
        try:
            return fields(known, data)
        except ValueError:  # it was written past the checks of publishing
            pass
    return Custom(**known)


def _progress(known: dict[str, Any], data: dict[str, Any]) -> Event:
    return Progress(
        **known,
        current=number(data.get("current")),
        total=number(data.get("total")),
        percent=reported_percent(data),
        unit=_text(data.get("unit")),
        message=_text(data.get("message")),
        rate=number(data.get("rate")),
        eta_ms=number(data.get("eta_ms")),
    )


def _log(known: dict[str, Any], data: dict[str, Any]) -> Event:
    message, level = _text(data.get("message")), _text(data.get("level"))
    return Log(**known, message=message or "", level=level or "info", stage=_text(data.get("stage")))


def _metadata(known: dict[str, Any], data: dict[str, Any]) -> Event:
    return MetadataChange(**known, changes=data)


def _status(known: dict[str, Any], data: dict[str, Any]) -> Event:
    attempt = data.get("attempt")
    return StatusChange(
        **known,
        status=Status(str(data.get("status"))),
        attempt=attempt if isinstance(attempt, int) else None,
        reason=_text(data.get("reason")),
        by=_text(data.get("by")),
    )


def _child(known: dict[str, Any], data: dict[str, Any]) -> Event:
    kind, title = _text(data.get("kind")), _text(data.get("title"))
    return Child(**known, child=str(data.get("operation")), kind=kind, title=title, weight=number(data.get("weight")))


def _end(known: dict[str, Any], data: dict[str, Any]) -> Event:
    error = data.get("error")
    outcome = Status(str(data.get("status")))
    return End(**known, status=outcome, result=data.get("result"), error=error if isinstance(error, dict) else None)


_FIELDS = {"progress": _progress, "log": _log, "metadata": _metadata, "status": _status, "child": _child, "end": _end}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
