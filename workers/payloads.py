"""What is reported, as JSON within the limits. Progress and logs always can be written; a result may be refused."""

from typing import Any

import orjson
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError

from broker import publishing
from broker.errors import Invalid
from broker.publishing import Entry
from broker.settings import Settings
from workers.errors import is_cancellation
from workers.logs import Line

MAX_MESSAGE_CHARS = 4096
"""Longest message kept of a log line or an error; the rest is cut."""

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_BULKY = (("metrics", "workers"), ("stages",))
_ESSENTIAL = ("current", "total", "unit", "percent", "message", "rate", "eta_ms")


def cut(text: str, most: int = MAX_MESSAGE_CHARS) -> str:
    """Return a text that is no longer than `most` and can be written as UTF-8."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def running(worker: str) -> Entry:
    """Return the event that says that a worker is at work."""
    return Entry("status", orjson.dumps({"status": "running", **({"worker": worker} if worker else {})}), "running")


def progress_json(progress: dict[str, Any], limit: int) -> tuple[bytes, list[str]]:
    """Return a `progress` object within `limit` bytes, and the names of the fields that had to be left out."""
    left_out: list[str] = []
    own = [name for name in progress if name not in _ESSENTIAL and not any(name in some for some in _BULKY)]
    for drop in ([], own, *_BULKY, ["message", "unit"]):
        for name in drop:
            if progress.get(name) is not None:
                left_out.append(name)
            progress.pop(name, None)
        try:
            encoded = orjson.dumps(progress, default=_plain, option=_OPTIONS)
        except TypeError:  # orjson's for all that JSON can't hold
            continue
        if len(encoded) <= limit:
            return encoded, left_out
    return b"{}", list(progress)


def _plain(value: object) -> object:
    return value.model_dump(mode="json", exclude_none=True) if isinstance(value, BaseModel) else str(value)


def room(settings: Settings) -> int:
    """Return how many characters of a message fit an event for sure: one may take six bytes in JSON."""
    return max(16, min(MAX_MESSAGE_CHARS, settings.max_event_bytes // 8 - 64))


def log_json(line: Line, most: int = MAX_MESSAGE_CHARS) -> bytes:
    """Return a line of the log, its message cut to `most` characters."""
    data: dict[str, Any] = {"level": line.level, "message": cut(line.message, most)}
    if line.stage is not None:
        data["stage"] = cut(line.stage)
    if line.dropped:
        data["dropped"] = line.dropped
    return orjson.dumps(data)


def given_up(error: BaseException | str | None, delay_s: float, attempt: int) -> Line:
    """Return the line that tells why an attempt is over, and when the next one follows."""
    why = f": {error if isinstance(error, str) else f'{_type(error)}: {_message(error)}'}" if error else ""
    return Line(cut(f"attempt {attempt} gave up{why}; another follows within {delay_s:g} s"), "warning", None)


def succeeded(result: object, settings: Settings) -> Entry:
    """Return the end of work that succeeded; raise `Invalid` or `TooLarge` for a result that can't be stored."""
    try:
        return publishing.encode("end", {"status": "succeeded", "result": result}, settings)
    except PydanticSerializationError as error:
        raise Invalid(f"the result can't be written as JSON: {error}", field="result") from None


def failed(error: BaseException | str, settings: Settings, reason: str | None = None) -> Entry:
    """Return the end of work that an exception stopped: `cancelled` if that is what it means, for `reason`."""
    if isinstance(error, str):
        status, kind, message = "failed", "failed", error
    elif is_cancellation(error):
        own = getattr(error, "reason", None)
        status, kind, message = "cancelled", "cancelled", own or reason or type(error).__name__
    else:
        status, kind, message = "failed", _type(error), _message(error)
    data = {"status": status, "error": {"type": cut(kind, 256), "message": cut(message, room(settings))}}
    return publishing.encode("end", data, settings)


def _type(error: BaseException) -> str:
    own = getattr(error, "error_type", None)  # what an exception wants to be called, such as `exit-code`
    return own if isinstance(own, str) else type(error).__qualname__


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as fault:  # an exception's own __str__ may do anything, and must not hide how the work ended
        return f"(its message can't be shown: {type(fault).__name__})"
