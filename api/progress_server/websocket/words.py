"""What a socket's client is told beside events. Such a message has no `data`, which every event has."""

import math
import random

import orjson

from progress_broker.settings import Settings
from progress_server.http.problems import PASSING, described

Ref = str | int | None
"""What a client names a request by, to know the answer to it."""


def message(event: str, **members: object) -> str:
    """Return a message; what is None is left out."""
    told = {name: value for name, value in members.items() if value is not None}
    return orjson.dumps({"event": event, **told}).decode()


def problem_message(
    code: str, detail: str, *, field: str | None = None, retry_s: float | None = None, **members: object
) -> str:
    """Return what went wrong, as the body of a refused request has it; and when to come back, where time mends it."""
    retry = {"retry_ms": math.ceil((retry_s or random.uniform(1, 5)) * 1000)} if code in PASSING else {}
    return message("problem", **described(code, detail, field), **members, **retry)


def retry_ms(settings: Settings) -> int:
    """Return how soon a client is to connect again: a different time for each, as many may be told at one moment."""
    return round(settings.retry_ms * random.uniform(0.5, 1.5))
