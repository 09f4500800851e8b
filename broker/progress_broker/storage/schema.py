"""What is checked before anything is served: the Redis at hand suits, and agrees with our settings."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis.exceptions

from progress_broker.errors import SetupError, StorageUnsuitable, Unreadable
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace, lane_tags, meta_key
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.run import run
from progress_broker.storage.scripts import META, SCHEMA, Call

DEFAULT_LANES = 16
OLDEST_REDIS = (6, 2)
META_FIELDS = ("schema", "lanes", "tags")
_SCHEMA = str(SCHEMA).encode()


async def ensure_schema(connections: Connections, settings: Settings) -> Keyspace:
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
        return read_meta(known if is_set_up(known) else await run(client, meta_call(settings)), settings)


@contextmanager
def setup_errors() -> Iterator[None]:
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


def check_schema_of(operation: str, found: bytes | None) -> None:
    """Raise `Unreadable` unless an operation's hash is of our schema, by its field `schema`."""
    if found == _SCHEMA:
        return
    if found is not None and found.isdigit():
        raise Unreadable(
            f"operation {operation} is stored in schema {found.decode()}, and this release speaks schema {SCHEMA}:"
            " upgrade the older of the two"
        )
    raise overwritten(operation)


def overwritten(operation: str) -> Unreadable:
    """Return the error for an operation whose data in Redis is not an operation's."""
    return Unreadable(f"another program overwrote operation {operation} in Redis")


def is_set_up(known: Sequence[bytes | None]) -> bool:
    """Return whether the meta key, with these values of `META_FIELDS`, needs no write of ours."""
    return known[0] is not None and (None not in known or known[0] != _SCHEMA)


def read_meta(reply: Sequence[bytes], settings: Settings) -> Keyspace:
    """Return the keyspace that the meta key describes; raise `SetupError` if we disagree with it."""
    _check_schema(reply[0], settings.prefix)
    if not reply[1].isdigit():
        raise SetupError(
            f"the number of lanes in {meta_key(settings.prefix)} is {reply[1]!r}: another program wrote it"
        )
    lanes, tags = int(reply[1]), reply[2].decode("utf-8", "replace")
    if settings.lanes is not None and settings.lanes != lanes:
        raise SetupError(
            f"this Redis was set up with {lanes} lanes, and PROGRESS_LANES says {settings.lanes}:"
            f" leave it out, or say {lanes}"
        )
    if tuple(tags.split(" ")) != lane_tags(settings.prefix, lanes):
        raise SetupError(f"the lanes' hash tags in {meta_key(settings.prefix)} are not this release's")
    return Keyspace(settings.prefix, lanes)


def _check_schema(found: bytes, prefix: str) -> None:
    if found == _SCHEMA:
        return
    says = (
        f"this Redis holds schema {found[:40].decode('utf-8', 'replace')} under the prefix {prefix!r}, and this release"
    )
    if not (found.isdigit() and len(found) < 16):
        raise SetupError(f"{says} speaks schema {SCHEMA}: another program wrote it; use another PROGRESS_PREFIX")
    if int(found) > SCHEMA:
        raise SetupError(f"{says}, which is older, speaks schema {SCHEMA}: upgrade it, or use another PROGRESS_PREFIX")
    raise SetupError(
        f"{says}, which is newer, speaks schema {SCHEMA}: use another PROGRESS_PREFIX, and move servers and workers"
        " there (docs/how-to/deploy.md, Upgrading)"
    )


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
