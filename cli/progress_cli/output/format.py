"""Formats operations and events as text, for terminals and pipes. Text from publishers is always escaped."""

from datetime import datetime
from typing import Any

import orjson

from progress_broker.model.operation import Cancel, Operation, Status
from progress_client.events import Child, End, Event, Log, Progress, StatusChange

STYLES = {
    "pending": "dim",
    "running": "cyan",
    "stalled": "yellow",
    "cancelling": "yellow",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "magenta",
}


def plain(value: object) -> str:
    """Return a value as one line that can't move the cursor or change colours, whoever wrote it."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in str(value))


def number(value: Any) -> str:
    """Return a count or a measure for people, with thousands separators."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def duration(seconds: float) -> str:
    """Return a duration for people, with about two digits."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless there is one."""
    return f"{number(count)} {noun}" if count == 1 else f"{number(count)} {noun}s"


def percentage(value: float) -> str:
    """Return a percentage with one digit. Only complete work shows 100."""
    return f"{min(value, 99.9) if value < 100 else value:.1f} %"


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was. `now` is by Redis' clock, as all times of operations are."""
    return "" if moment is None else f"{duration((now - moment).total_seconds())} ago"


def stamp(moment: datetime | None, now: datetime) -> str:
    """Return the local date and time of a moment with its zone, and how long ago it was."""
    return "" if moment is None else f"{moment.astimezone().isoformat(' ', 'seconds')} ({ago(moment, now)})"


def progress(payload: dict[str, Any] | None, status: str = Status.RUNNING, *, message: bool = True) -> str:
    """Return a short text for a `progress` object; it has the time left only if the status is `running`.

    Other workers may have put any values into it.
    """
    if not payload:
        return ""
    words = []
    percent, current, total = payload.get("percent"), payload.get("current"), payload.get("total")
    if isinstance(percent, int | float):
        words.append(percentage(percent))
    if current or total:
        of = "" if total is None else f"/{number(total)}"
        words.append(f"{number(current)}{of} {plain(payload.get('unit') or '')}".rstrip())
    eta_ms = payload.get("eta_ms")
    if status == Status.RUNNING and isinstance(eta_ms, int | float) and eta_ms > 0:
        words.append(f"{duration(eta_ms / 1000)} left")
    if message and payload.get("message"):
        words.append(plain(payload["message"]))
    return "  ".join(words)


def running_stage(payload: dict[str, Any] | None) -> str:
    """Return the name of the first running stage, or an empty text."""
    stages = (payload or {}).get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict) and stage.get("status") == "running":
            return plain(stage.get("name"))
    return ""


def outcome(operation: Operation) -> str:
    """Return how an operation ended: its result or its error, or an empty text."""
    if operation.error is not None:
        return failure(operation.error)
    return "" if operation.result is None else plain(compact(operation.result))


def failure(error: dict[str, Any]) -> str:
    """Return an error's type and message."""
    by = f" (by {plain(error['by'])})" if error.get("by") else ""
    return f"{plain(error.get('type'))}: {plain(error.get('message'))}{by}"


def describe_cancel(cancel: Cancel | None) -> str:
    """Return that the work was asked to stop, by whom and why."""
    by = f" by {plain(cancel.by)}" if cancel and cancel.by else ""
    why = f": {plain(cancel.reason)}" if cancel and cancel.reason else ""
    return f"asked to stop{by}{why}"


def ignored(operation: Operation, now: datetime) -> bool:
    """Return whether a worker still works after a cancel, although its time to stop is over."""
    return operation.status is Status.CANCELLING and operation.cancel is not None and operation.cancel.overdue_at <= now


def compact(value: object) -> str:
    """Return JSON on one line."""
    return orjson.dumps(value).decode()


def time_of(event: Event) -> datetime:
    """Return the local time of an event."""
    return event.at.astimezone()


def status(event: Event) -> str:
    """Return the status that an event sets; an empty text for other events."""
    return event.status.value if isinstance(event, StatusChange | End) else ""


def describe(event: Event, before: str = "") -> str:
    """Return one line about an event; `before` is the status before it, if known."""
    match event:
        case Progress(data=payload):
            stage = running_stage(payload)
            standing = progress(payload, before or Status.RUNNING)
            return "  ".join(part for part in (standing, f"[{stage}]" if stage else "") if part)
        case Log(level=level, message=message, stage=stage):
            return f"{plain(level)}{f' [{plain(stage)}]' if stage else ''}: {plain(message)}"
        case StatusChange():
            return _described_status(event, before)
        case Child(child=child, title=title, kind=kind):
            return f"{plain(child)}  {plain(title or kind)}"
        case End(status=status, error=error) if error is not None:
            return f"{status.value}  {failure(error)}"
        case End(status=status, result=result):
            return status.value if result is None else f"{status.value}  {plain(compact(result))}"
        case _:
            return plain(compact(event.data))


def _described_status(event: StatusChange, before: str) -> str:
    if event.status is Status.STALLED:
        return "stalled: no heartbeat from its worker"
    if event.status is Status.CANCELLING:
        return f"cancelling: {describe_cancel(Cancel(reason=event.reason, by=event.by))}"
    if event.attempt:
        worker = f" by {plain(event.data['worker'])}" if event.data.get("worker") else ""
        return f"{event.status.value}: attempt {event.attempt} started{worker}"
    return f"{event.status.value}{' again' if (before, event.status) == (Status.STALLED, Status.RUNNING) else ''}"
