"""What is reported, as JSON within the limits. Whatever users hand over, it can be written."""

from collections.abc import Iterator
from typing import Any

import orjson

from progress_broker.errors import TooLarge
from progress_broker.model.entry import Entry, encode, encode_custom
from progress_broker.settings import Settings
from progress_workers.core.backlog import Line
from progress_workers.errors import cancel_reason, exit_described, is_cancellation, stop_described
from progress_workers.values import MAX_CHARS, attempt, text, tree, type_name

_ESSENTIAL = ("current", "total", "unit", "percent", "message", "rate", "eta_ms")
_BULKY = ("metrics", "workers", "stages")


def running(worker: str) -> Entry:
    """Return the event that says that a worker is at work."""
    return Entry("status", orjson.dumps({"status": "running", **({"worker": worker} if worker else {})}), "running")


def progress_json(progress: dict[str, Any], limit: int) -> tuple[bytes, list[str]]:
    """Return a `progress` object within `limit` bytes, and the names of what had to be left out: the largest first."""
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
    """Yield the user's own fields and metrics: how many bytes each takes, its name, and what holds it."""
    own = [name for name in progress if name not in _ESSENTIAL and name not in _BULKY]
    for names, holder in ((own, progress), (metrics, metrics)):
        for name in names:
            yield len(orjson.dumps({name: holder[name]})) - 1, name, holder


def room(settings: Settings) -> int:
    """Return how many characters of a message fit an event for sure: one may take six bytes in JSON."""
    return max(16, min(MAX_CHARS, settings.max_event_bytes // 8 - 64))


def log_json(line: Line, most: int = MAX_CHARS) -> bytes:
    """Return a line of the log, its message cut to `most` characters."""
    data: dict[str, Any] = {"level": line.level, "message": text(line.message, most)}
    if line.stage is not None:
        data["stage"] = line.stage
    if line.dropped:
        data["dropped"] = line.dropped
    return orjson.dumps(data)


def given_up(error: BaseException | str | None, delay_s: float, attempt: int) -> Line:
    """Return the line that tells why an attempt is over, and when the next one follows."""
    why = "" if error is None or error == "" else f": {_described(error)}"
    return Line(text(f"attempt {attempt} gave up{why}; another follows within {delay_s:g} s"), "warning", None)


def succeeded(result: object, settings: Settings) -> tuple[Entry, str]:
    """Return the end of work that succeeded, and a warning if its result is not told as it is; else an empty text."""
    said = ""
    try:
        told = tree(result, settings.max_event_bytes - _END_BYTES)
    except TooLarge as error:
        told, said = tree(None, 4), f"the result was left out: {error} (PROGRESS_MAX_EVENT_BYTES)"
    if told.replaced:
        said = f"the result is not JSON; shown as text: {', '.join(told.replaced)}"
    data = {"status": "succeeded", "result": told.value, "error": None}
    return Entry("end", orjson.dumps(data), "succeeded"), said


_END_BYTES = len(orjson.dumps({"status": "succeeded", "result": "", "error": None}))


def failed(error: BaseException | str, settings: Settings, reason: str | None = None) -> Entry:
    """Return the end of work that an exception stopped: `cancelled` if that is what it means, for `reason`."""
    if not isinstance(error, BaseException):
        status, kind, message = "failed", "failed", text(error)
    elif is_cancellation(error):
        status, kind, message = "cancelled", "cancelled", cancel_reason(error) or reason or stop_described(error)
    else:
        status, kind, message = "failed", _type(error), _message(error)
    data = {"status": status, "error": {"type": text(kind, 256), "message": text(message, room(settings))}}
    return encode("end", data, settings)


def custom(type: str, data: object, settings: Settings) -> tuple[Entry, str]:
    """Return an event of a user's own, and a warning if its data are not told as they are; else an empty text.

    Raises `Invalid` for a type that can't be, and `TooLarge`.
    """
    told = tree(data, settings.max_event_bytes)
    entry = encode_custom(type, told.value, settings)
    return entry, f"data of {type!r} are shown as text: {', '.join(told.replaced)}" if told.replaced else ""


def _described(error: BaseException | str) -> str:
    return f"{_type(error)}: {_message(error)}" if isinstance(error, BaseException) else text(error)


def _type(error: BaseException) -> str:
    own = attempt(lambda: getattr(error, "error_type", None), otherwise=lambda _: None)
    return own if isinstance(own, str) else type_name(error)  # what an exception wants to be called, as `exit-code`


def _message(error: BaseException) -> str:
    """Return an exception's message. Its own `__str__` may do anything, and must not hide how the work ended."""
    if isinstance(error, SystemExit):
        return exit_described(error)
    found = attempt(str, error, otherwise=lambda fault: f"(its message can't be shown: {type_name(fault)})")
    return text(found)
