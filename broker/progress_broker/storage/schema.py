"""What is checked before anything is served: the Redis at hand suits, and agrees with our settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis.exceptions

from progress_broker.errors import SetupError, StorageUnsuitable
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace, lane_tags, meta_key
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.run import run
from progress_broker.storage.scripts import META, Call

SCHEMA = 1
DEFAULT_LANES = 16
OLDEST_REDIS = (6, 2)
META_FIELDS = ("schema", "lanes", "tags")


async def agree(connections: Connections, settings: Settings) -> Keyspace:
    """Check that this Redis suits, and return the keyspace all its users share; raise `SetupError` otherwise.

    Raises `StorageUnavailable` or `StorageFull` where that can't be known.
    """
    client = connections.commands
    with storage_errors():
        # A server that won't tell (a managed one, or the test double) is taken at its word.
        with suppress(redis.exceptions.ResponseError):
            check_server(await client.info())
        # Read before anything is written, so that a Redis that takes no writes can be started on, and read.
        known = await client.hmget(meta_key(settings.prefix), META_FIELDS)
        return read_meta(known if None not in known else await run(client, meta_call(settings)), settings)


@contextmanager
def ending_what_is_wrong_for_good() -> Iterator[None]:
    """Raise as `SetupError` what does not pass by itself."""
    try:
        yield
    except StorageUnsuitable as error:
        raise SetupError(error.detail) from None


def meta_call(settings: Settings) -> Call:
    """Return the call that reads what all must agree on, and fixes it at first start."""
    lanes = settings.lanes or DEFAULT_LANES
    args = (str(SCHEMA), str(lanes), " ".join(lane_tags(settings.prefix, lanes)))
    return Call(META, [meta_key(settings.prefix)], args)


def read_meta(reply: Sequence[bytes], settings: Settings) -> Keyspace:
    """Return the keyspace that the meta key describes; raise `SetupError` if we disagree with it."""
    schema, lanes, tags = int(reply[0]), int(reply[1]), reply[2].decode()
    if schema != SCHEMA:
        raise SetupError(
            f"this Redis holds schema {schema} under the prefix {settings.prefix!r}, and this release speaks {SCHEMA}:"
            " use another PROGRESS_PREFIX, or the release that wrote it"
        )
    if settings.lanes is not None and settings.lanes != lanes:
        raise SetupError(
            f"this Redis was set up with {lanes} lanes, and PROGRESS_LANES says {settings.lanes}:"
            f" leave it out, or say {lanes}"
        )
    if tuple(tags.split(" ")) != lane_tags(settings.prefix, lanes):
        raise SetupError(f"the lanes' hash tags in {meta_key(settings.prefix)} are not this release's")
    return Keyspace(settings.prefix, lanes)


def check_server(info: dict[str, Any]) -> None:
    """Raise `SetupError` unless the server that answers INFO like this can hold progress safely."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_REDIS:
        raise SetupError(f"this Redis is {version}; 6.2 or later is needed")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise SetupError(
            f"this Redis evicts keys when it is full (maxmemory-policy {policy}), which would lose progress unsaid:"
            " set maxmemory-policy noeviction"
        )
