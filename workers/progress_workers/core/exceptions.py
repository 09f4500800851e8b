"""Describes exceptions for the end of an operation, within a bounded size. The only I/O is to read source lines."""

from itertools import islice
from traceback import extract_tb, format_list
from types import TracebackType
from typing import Any

import orjson

from progress_workers.errors import describe_exit, grouped
from progress_workers.values import attempt, text, type_name

MAX_FRAMES = 20
"""How many frames of a traceback are shown: the innermost."""
MAX_TRACEBACK_CHARS = 8_192
"""The longest traceback. Of a longer one the end is kept, where the exception was raised."""
MAX_GROUPED_SHOWN = 3
"""How many exceptions of an exception group are named in its message."""
MAX_GROUPED_CHARS = 1_024
"""How much of each is shown."""
MAX_CAUSES = 4
"""How many causes of an exception are shown, each of which is that of the one before."""


def described(error: BaseException) -> str:
    """Return an exception's type and message."""
    return f"{kind_of(error)}: {message_of(error)}"


def kind_of(error: BaseException) -> str:
    """Return an exception's type: its own word for it, such as `exit-code`, or the name of its class."""
    own = attempt(lambda: getattr(error, "error_type", None), otherwise=lambda _: None)
    return own if isinstance(own, str) else type_name(error)


def message_of(error: BaseException) -> str:
    """Return an exception's message. Its `__str__` may fail in any way, and must not hide how the work ended."""
    if isinstance(error, SystemExit):
        return describe_exit(error)
    found = attempt(
        str,
        error,
        otherwise=lambda fault: f"(the message of this error can't be shown: str() raised {type_name(fault)})",
    )
    if isinstance(error, BaseExceptionGroup):  # whose own message only says how many there are
        first = islice(grouped(error), MAX_GROUPED_SHOWN)
        found = f"{text(found)}: {'; '.join(text(described(each), MAX_GROUPED_CHARS) for each in first)}"
    return text(found)


def details(error: BaseException, most: int) -> dict[str, Any]:
    """Return the `traceback` and the `cause` of an exception, in at most `most` bytes of JSON; causes go first."""
    for causes in range(MAX_CAUSES, -1, -1):
        found = _details(error, causes)
        if len(orjson.dumps(found)) <= most:
            return found
    return {}


def _details(error: BaseException, causes: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if error.__traceback__ is not None:
        found["traceback"] = attempt(_traceback, error.__traceback__, otherwise=lambda fault: f"({type_name(fault)})")
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and causes:
        found["cause"] = {
            "type": text(kind_of(cause), 256),
            "message": text(message_of(cause), 1024),
            **_details(cause, causes - 1),
        }
    return found


def _traceback(traceback: TracebackType) -> str:
    frames = extract_tb(traceback, limit=-MAX_FRAMES)
    shown = text("".join(format_list(frames)).rstrip("\n"), 1 << 20)
    return shown if len(shown) <= MAX_TRACEBACK_CHARS else f"…{shown[1 - MAX_TRACEBACK_CHARS :]}"
