"""Encodes reports as JSON within the size limits. Every value that users pass can be encoded."""

from collections.abc import Iterator
from typing import Any

import orjson

from progress_broker.errors import TooLarge
from progress_broker.model.entry import NewEvent, encode, encode_custom
from progress_broker.settings import Settings
from progress_workers.core.exceptions import described, details, kind_of, message_of
from progress_workers.core.outgoing.backlog import Line
from progress_workers.errors import cancel_reason, describe_cancel, is_cancellation
from progress_workers.values import MAX_CHARS, text, tree

_ESSENTIAL = ("current", "total", "unit", "percent", "message", "rate", "eta_ms")
_BULKY = ("metrics", "workers", "stages")


def running(worker: str) -> NewEvent:
    """Return the `status` event that reports that a worker has started the operation."""
    return NewEvent("status", orjson.dumps({"status": "running", **({"worker": worker} if worker else {})}), "running")


def progress_json(progress: dict[str, Any], limit: int) -> tuple[bytes, list[str]]:
    """Encode a `progress` object in at most `limit` bytes. Also return the names of fields that were left out.

    The largest fields are left out first.
    """
    left_out: list[str] = []
    encoded = orjson.dumps(progress)
    if len(encoded) <= limit:
        return encoded, left_out
    metrics = progress["metrics"] = dict(progress.get("metrics") or {})
    excess = len(encoded) - limit
    for size, name, holder in sorted(_optional(progress, metrics), key=lambda found: -found[0]):
        if excess > 0:
            del holder[name]
            excess -= size
            left_out.append(name)
    for name in ("metrics", "workers", "stages", "message", "unit"):
        encoded = orjson.dumps(progress)
        if len(encoded) <= limit:
            return encoded, left_out
        if progress.pop(name, None):
            left_out.append(name)
    return orjson.dumps(progress), left_out


def _optional(progress: dict[str, Any], metrics: dict[str, Any]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the user's own fields and metrics: the size of each in bytes, its name, and the dict that holds it."""
    own = [name for name in progress if name not in _ESSENTIAL and name not in _BULKY]
    for names, holder in ((own, progress), (metrics, metrics)):
        for name in names:
            yield len(orjson.dumps({name: holder[name]})) - 1, name, holder


def room(max_event_bytes: int) -> int:
    """Return how many characters of a message always fit an event: in JSON, one character may need six bytes."""
    return max(16, min(MAX_CHARS, max_event_bytes // 8 - 64))


def log_json(line: Line, most: int = MAX_CHARS) -> bytes:
    """Return a log line as JSON, its message cut to `most` characters."""
    data: dict[str, Any] = {"level": line.level, "message": text(line.message, most)}
    if line.stage is not None:
        data["stage"] = line.stage
    if line.dropped:
        data["dropped"] = line.dropped
    return orjson.dumps(data)


def given_up(error: BaseException | str | None, delay_s: float, attempt: int) -> Line:
    """Return the log line that reports why an attempt is over, and when the next one follows."""
    why = ""
    if error is not None and error != "":
        why = f": {described(error) if isinstance(error, BaseException) else text(error)}"
    return Line(text(f"attempt {attempt} failed{why}; the next attempt follows within {delay_s:g} s"), "warning", None)


def succeeded(result: object, settings: Settings) -> tuple[NewEvent, str]:
    """Return the end of work that succeeded, and a warning if its result was changed; otherwise an empty text."""
    said = ""
    try:
        converted = tree(result, settings.max_event_bytes - _END_BYTES)
    except TooLarge as error:
        converted, said = tree(None, 4), f"the result was left out, because {error} (PROGRESS_MAX_EVENT_BYTES)"
    if converted.replaced:
        said = f"the result is not JSON; these parts are shown as text: {', '.join(converted.replaced)}"
    data = {"status": "succeeded", "result": converted.value, "error": None}
    return NewEvent("end", orjson.dumps(data), "succeeded"), said


_END_BYTES = len(orjson.dumps({"status": "succeeded", "result": "", "error": None}))


def failed(error: BaseException | str, settings: Settings, reason: str | None = None) -> NewEvent:
    """Return the end of work that an exception ended: `cancelled`, for `reason`, if the exception means a cancel."""
    if not isinstance(error, BaseException):
        status, kind, message = "failed", "failed", text(error)
    elif is_cancellation(error):
        status, kind, message = "cancelled", "cancelled", cancel_reason(error) or reason or describe_cancel(error)
    else:
        status, kind, message = "failed", kind_of(error), message_of(error)
    shown: dict[str, Any] = {"type": text(kind, 256), "message": text(message, room(settings.max_event_bytes))}
    if settings.error_tracebacks and status == "failed" and isinstance(error, BaseException):
        shown |= details(error, settings.max_event_bytes - len(orjson.dumps(shown)) - _END_BYTES)
    return encode("end", {"status": status, "error": shown}, settings)


def custom(type: str, data: object, settings: Settings) -> tuple[NewEvent, str]:
    """Return an event of a user's own type, and a warning if its data were changed; otherwise an empty text.

    Raises `InvalidInput` for an invalid type, and `TooLarge`.
    """
    converted = tree(data, settings.max_event_bytes)
    entry = encode_custom(type, converted.value, settings)
    return (
        entry,
        f"the data of event {type!r} are not JSON; these parts are shown as text: {', '.join(converted.replaced)}"
        if converted.replaced
        else "",
    )
