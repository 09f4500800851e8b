"""Redis' and the network's errors, read as the broker's own: the one place that knows what each of them means."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from progress_broker.errors import StorageFull, StorageUnavailable, StorageUnsuitable, Unreadable
from progress_broker.storage.server_kind import NotMaster, WrongKind

_UNAVAILABLE = (
    "BUSY ",
    "MOVED",
    "ASK",
    "UNBLOCKED",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "NOAUTH",
)
"""Codes of replies that say nothing of the call itself: the server can't run it now."""

_FULL = "Redis is out of memory and takes no writes: give it more, or shorten retention"

_SCRIPT_ERROR = re.compile("^Error running script.*: -(?=[A-Z]+ )")
"""What Redis before 7 puts before the error of a command in a script."""


def text_of(error: redis.exceptions.RedisError) -> str:
    """Return what Redis replied, beginning with the code where the library or a script of Redis 6 put it elsewhere."""
    text = _SCRIPT_ERROR.sub("", str(error))
    code = error.status_code
    return text if code in (None, "ERR") or text.startswith(f"{code} ") else f"{code} {text}"


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn Redis' and the network's errors into the broker's own. Those of one call alone are raised as they are."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        ours = storage_error(error)
        if ours is None:
            raise
        raise ours from None


def storage_error(
    error: redis.exceptions.RedisError | OSError,
) -> StorageUnavailable | StorageFull | Unreadable | None:
    """Return the broker's own error that an error of Redis or of the network stands for, None if it has none."""
    cause = error.__cause__
    if type(error) is redis.exceptions.ConnectionError and isinstance(cause, redis.exceptions.RedisError):
        # The library wraps what comes up while a connection is made.
        return storage_error(cause) or StorageUnavailable(f"Redis can't be reached: {cause}")
    # By class where the library has one: it strips the code from the text of those.
    if isinstance(error, OSError):
        return StorageUnavailable(f"Redis can't be reached: {str(error) or type(error).__name__}")
    match error:
        case redis.exceptions.AuthenticationError():
            return StorageUnsuitable(f"Redis refuses the user or password of PROGRESS_REDIS_URL: {error}")
        case redis.exceptions.NoPermissionError():
            return StorageUnsuitable(
                "Redis does not grant the user of PROGRESS_REDIS_URL all that is needed,"
                f" see deploy/redis.conf: {error}"
            )
        case WrongKind():
            return StorageUnsuitable(str(error))
        case NotMaster():
            return StorageUnavailable(str(error))
        case redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            return StorageUnavailable(f"Redis can't be reached: {str(error) or type(error).__name__}")
        case redis.exceptions.NoScriptError():
            return StorageUnavailable("Redis has forgotten a script it was just taught: it may be failing over")
        case redis.exceptions.InvalidResponse():
            return StorageUnavailable(f"what answers is no Redis: {str(error)[:100]}")
        case redis.exceptions.ClusterCrossSlotError():
            return StorageUnsuitable(
                "Redis spreads its keys over several servers, as a Cluster or a proxy before one does:"
                " progress-broker needs a single master"
            )
        case redis.exceptions.ClusterError() | redis.exceptions.AskError() | redis.exceptions.TryAgainError():
            return _passing(error)
        case redis.exceptions.ReadOnlyError():
            return _passing(error)
        case redis.exceptions.OutOfMemoryError():
            return StorageFull(_FULL)
    text = text_of(error)
    if text.startswith("OOM"):
        return StorageFull(_FULL)
    if text.startswith("MISCONF"):
        return StorageFull("Redis can't write to its disk and takes no writes: see its log")
    if "WRONGTYPE" in text:  # a pipeline says before it which command it was
        return Unreadable("what Redis holds there is something else: another program wrote it")
    return _passing(error) if text.startswith(_UNAVAILABLE) else None


def _passing(error: redis.exceptions.RedisError) -> StorageUnavailable:
    return StorageUnavailable(f"Redis can't answer now: {text_of(error)}")
