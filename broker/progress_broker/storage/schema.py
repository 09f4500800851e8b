"""The checks before a server or a worker uses a Redis: its version, its configuration, and whether its data match."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any

import redis.exceptions

from progress_broker.errors import SetupError, StorageUnsuitable, Unreadable
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace, lane_tags, meta_key
from progress_broker.storage.scripts import META, SCHEMA

DEFAULT_LANES = ((4, 16), (16, 64), (inf, 256))
"""How many lanes there are, by the number of masters at the first start up to which that holds. With fewer than four
for each master, some of them would have none, or twice as many as others."""
OLDEST_REDIS = (6, 2)
META_FIELDS = ("schema", "lanes", "tags")
_SCHEMA = str(SCHEMA).encode()


class OtherLanes(SetupError):
    """A Redis was set up with another number of lanes than the settings have."""


async def ensure_schema(connections: Connections, settings: Settings) -> Keyspace:
    """Check that this Redis can be used, and return the keyspace that all its users share.

    Raises `SetupError` if its version, its configuration or its data do not fit this program and its settings, and
    `StorageUnavailable` or `StorageFull` if that can't be checked now.
    """
    with storage_errors():
        masters = await connections.masters()
        await _check_servers(masters)
        # Read before anything is written, so that a server can start, and read, with a Redis that rejects writes.
        known = await connections.commands.hmget(meta_key(settings.prefix), META_FIELDS)
        if not is_set_up(known):
            known = await connections.scripts.run(meta_call(settings, len(masters)))
        return read_meta(known, settings)


async def _check_servers(masters: Sequence[Any]) -> None:
    """Check all servers; of several, those that answer."""
    read = await asyncio.gather(*(master.info() for master in masters), return_exceptions=True)
    failed: list[BaseException] = []
    for info in read:
        # Some managed servers, and the test double, do not report this. They are accepted without the check.
        if isinstance(info, BaseException) and not isinstance(info, redis.exceptions.ResponseError):
            failed.append(info)
        elif isinstance(info, dict):
            check_server(info)
    if failed and len(failed) == len(read):
        raise failed[0]


@contextmanager
def setup_errors() -> Iterator[None]:
    """Convert storage errors that a retry does not solve to `SetupError`."""
    try:
        yield
    except StorageUnsuitable as error:
        raise SetupError(error.detail) from None


def meta_call(settings: Settings, masters: int = 1) -> Call:
    """Return the call that reads the values that all programs must agree on. At the first start it also writes them."""
    lanes = settings.lanes or next(lanes for most, lanes in DEFAULT_LANES if masters <= most)
    args = (str(SCHEMA), str(lanes), " ".join(lane_tags(settings.prefix, lanes)))
    return Call(META, [meta_key(settings.prefix)], args)


def check_schema_of(operation: str, found: bytes | None) -> None:
    """Raise `Unreadable` unless an operation's schema, its field `schema`, is that of this program."""
    if found == _SCHEMA:
        return
    if found is not None and found.isdigit():
        raise Unreadable(
            f"operation {operation} is stored in schema {found.decode()}, but this program supports only"
            f" schema {SCHEMA}: upgrade the older of the programs that use this Redis"
        )
    raise overwritten(operation)


def overwritten(operation: str) -> Unreadable:
    """Return the error for an operation whose data in Redis were overwritten by another program."""
    return Unreadable(f"another program overwrote operation {operation} in Redis")


def is_set_up(known: Sequence[bytes | None]) -> bool:
    """Return whether the meta key, with these values of `META_FIELDS`, is complete, so that nothing must be written."""
    return known[0] is not None and (None not in known or known[0] != _SCHEMA)


def read_meta(reply: Sequence[bytes], settings: Settings) -> Keyspace:
    """Return the keyspace that the meta key describes; raise `SetupError` if our schema or settings differ from it."""
    _check_schema(reply[0], settings.prefix)
    if not reply[1].isdigit():
        raise SetupError(
            f"the number of lanes in the key {meta_key(settings.prefix)} is {reply[1]!r}, which another program wrote:"
            " use another PROGRESS_PREFIX"
        )
    lanes, tags = int(reply[1]), reply[2].decode("utf-8", "replace")
    if settings.lanes is not None and settings.lanes != lanes:
        raise OtherLanes(
            f"this Redis was set up with {lanes} lanes, but PROGRESS_LANES is {settings.lanes}:"
            f" remove PROGRESS_LANES, or set it to {lanes}"
        )
    if tuple(tags.split(" ")) != lane_tags(settings.prefix, lanes):
        raise SetupError(
            f"the hash tags in the key {meta_key(settings.prefix)} differ from those of this program:"
            " use another PROGRESS_PREFIX"
        )
    return Keyspace(settings.prefix, lanes)


def _check_schema(found: bytes, prefix: str) -> None:
    if found == _SCHEMA:
        return
    stored = found[:40].decode("utf-8", "replace")
    if not (found.isdigit() and len(found) < 16):
        raise SetupError(
            f"another program wrote the schema {stored} to this Redis under the prefix {prefix!r}:"
            " use another PROGRESS_PREFIX"
        )
    if int(found) > SCHEMA:
        raise SetupError(
            f"this Redis has data in schema {stored} under the prefix {prefix!r}. This program is older and"
            f" supports only schema {SCHEMA}: upgrade this program, or use another PROGRESS_PREFIX"
        )
    raise SetupError(
        f"this Redis has data in schema {stored} under the prefix {prefix!r}. This program is newer and supports only"
        f" schema {SCHEMA}: use another PROGRESS_PREFIX, and move servers and workers to it"
        " (docs/how-to/deploy.md, Upgrading)"
    )


def check_server(info: dict[str, Any]) -> None:
    """Raise `SetupError` if the server's reply to INFO shows that it is too old, or that it would lose data."""
    check_version(info)
    check_policy(info)


def check_version(info: dict[str, Any]) -> None:
    """Raise `SetupError` if the server is too old."""
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_REDIS:
        raise SetupError(f"this Redis has version {version}, but version 6.2 or later is needed: upgrade Redis")


def check_policy(info: dict[str, Any]) -> None:
    """Raise `SetupError` if the server would delete keys when it is full."""
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise SetupError(
            f"this Redis deletes keys when it is full (maxmemory-policy {policy}), so progress would be lost without"
            " an error: set maxmemory-policy noeviction in the configuration of Redis"
        )
