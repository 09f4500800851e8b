"""What errors of servers say, whatever the library and old servers make of it."""

import re

import redis.exceptions

FAILURES = (redis.exceptions.RedisError, OSError)
"""The errors with which asking a server fails."""

_SCRIPT_ERROR = re.compile("^Error running script.*: -(?=[A-Z]+ )")
"""The text that Redis before version 7 writes before the error of a command in a script."""


def text_of(error: redis.exceptions.RedisError) -> str:
    """Return Redis' error text, starting with its code. The library and scripts on Redis 6 move or remove the code."""
    text = _SCRIPT_ERROR.sub("", str(error))
    code = error.status_code
    return text if code in (None, "ERR") or text.startswith(f"{code} ") else f"{code} {text}"


def reason_of(error: Exception) -> str:
    """Return why a server can't be reached, for people."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
