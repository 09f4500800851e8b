"""Converts errors of Redis and of the network to the broker's own errors. No other module interprets them."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from progress_broker.errors import (
    LaneAway,
    SlotMoving,
    StorageFull,
    StorageReadOnly,
    StorageUnavailable,
    StorageUnsuitable,
    Unreadable,
)
from progress_broker.routing.health import NodeAway
from progress_broker.routing.plan import is_moving
from progress_broker.routing.server_errors import text_of
from progress_broker.routing.server_kind import NotMaster, WrongKind

_UNAVAILABLE = (
    "BUSY ",
    "MOVED",
    "ASK",
    "UNBLOCKED",
    "NOREPLICAS",
    "LOADING",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
)
"""Error codes that mean that the server can't run any call now. The call itself may be valid."""

_FULL = (
    "Redis is out of memory and rejects writes: delete operations (`progress-broker purge`), keep them for a shorter"
    " time (`progress-broker retention`), or increase its maxmemory (PROGRESS_EMBEDDED_MAX_BYTES for the Redis that"
    " `serve` started)"
)

_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")
"""What servers say of a permission that a script lacks: Redis 7.0 and later ones. The code is not NOPERM."""

_REPLICA = ("READONLY", "MASTERDOWN")
"""Error codes that only a replica replies with."""

_READ_ONLY = (
    "the Redis at PROGRESS_REDIS_URL is a replica now and rejects writes ({}), as after a failover:"
    " set PROGRESS_REDIS_URL to the master's address; if the address follows the master, wait: this is retried"
)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Convert errors of Redis and of the network to the broker's own. Errors of a single call are raised unchanged."""
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
    """Return the broker's error for an error of Redis or of the network, or None if there is none."""
    cause = error.__cause__
    if type(error) is redis.exceptions.ConnectionError and isinstance(cause, redis.exceptions.RedisError):
        # The library wraps errors that occur while it connects.
        return storage_error(cause) or StorageUnavailable(f"Redis can't be reached: {cause}")
    # Check the class first: if the library has a class for an error, it removes the code from the text.
    if isinstance(error, OSError):
        return StorageUnavailable(f"Redis can't be reached: {str(error) or type(error).__name__}")
    match error:
        case redis.exceptions.AuthenticationError():
            return StorageUnsuitable(f"Redis rejected the user or password in PROGRESS_REDIS_URL: {error}")
        case redis.exceptions.NoPermissionError():
            return _not_permitted(error)
        case WrongKind():
            return StorageUnsuitable(str(error))
        case NodeAway():
            return LaneAway(f"Redis can't be reached: {error}")
        case NotMaster():
            return StorageReadOnly(str(error))
        case redis.exceptions.ReadOnlyError() | redis.exceptions.MasterDownError():
            return StorageReadOnly(_READ_ONLY.format(text_of(error)))
        case redis.exceptions.ConnectionError() | redis.exceptions.TimeoutError():
            return StorageUnavailable(f"Redis can't be reached: {str(error) or type(error).__name__}")
        case redis.exceptions.NoScriptError():
            return StorageUnavailable(
                "Redis lost a script that was just loaded, perhaps because of a failover: retry in a moment"
            )
        case redis.exceptions.InvalidResponse():
            return StorageUnavailable(f"the server at PROGRESS_REDIS_URL is not a Redis: {str(error)[:100]}")
        case redis.exceptions.ClusterCrossSlotError():
            return StorageUnsuitable(
                "this Redis distributes its keys over several servers: if it is a Cluster, write redis+cluster://…"
                " instead of redis://… in PROGRESS_REDIS_URL; a proxy for a Cluster is not supported"
            )
        case redis.exceptions.ResponseError() if is_moving(error):
            return SlotMoving(f"Redis is moving this key to another node: retry in a moment ({text_of(error)})")
        case redis.exceptions.ClusterError() | redis.exceptions.AskError() | redis.exceptions.TryAgainError():
            return _passing(error)
        case redis.exceptions.OutOfMemoryError():
            return StorageFull(_FULL)
    text = text_of(error)
    if text.startswith("OOM"):
        return StorageFull(_FULL)
    if text.startswith("MISCONF"):
        return StorageFull("Redis can't write to its disk and rejects writes: see the log of Redis")
    if any(words in text for words in _IN_SCRIPT):
        return _not_permitted(error)
    if text.startswith(_REPLICA):
        return StorageReadOnly(_READ_ONLY.format(text))
    if "WRONGTYPE" in text:  # a pipeline's error text starts with the command
        return Unreadable("a key in Redis has the wrong type: another program has overwritten the key")
    return _passing(error) if text.startswith(_UNAVAILABLE) else None


def _not_permitted(error: redis.exceptions.RedisError) -> StorageUnsuitable:
    return StorageUnsuitable(
        f"the Redis user in PROGRESS_REDIS_URL lacks a permission ({error}): give it the permissions in"
        " deploy/redis.conf"
    )


def _passing(error: redis.exceptions.RedisError) -> StorageUnavailable:
    return StorageUnavailable(f"Redis can't answer now: {text_of(error)}")
