"""What a test may leave in Redis: nothing without a bound."""

import re
from contextlib import suppress
from typing import Any

import redis.exceptions

from progress_broker.access.audit import LENGTH
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace, audit_keys

OPERATION = re.compile(r"\{[^}]+\}:op:[^:]+(:events|:events:kept|:events:curve|:signals)?")
STAGING = re.compile(r"\{[^}]+\}:import:[^:]+(:events|:events:kept|:events:curve)?")
INDEX = re.compile(r"\{[^}]+\}:index(:order:created|:(status|kind|owner|tag|parent|metadata):.+)?", re.DOTALL)
CALLER = re.compile(r"\{[^}]+:caller:[0-9a-f]{24}\}:(streams|requests|sent)")
SLACK = 110  # MAXLEN ~ keeps up to a node more


async def keys_of_all(connections: Connections) -> list[bytes]:
    """Return the keys of all servers."""
    return [key for master in await connections.masters() for key in await master.keys("*")]


async def flush_all(connections: Connections) -> None:
    """Empty all servers."""
    for master in await connections.masters():
        await master.flushall()


async def master_of(connections: Connections, key: str) -> Any:
    """Return a client of the one server that has a key."""
    for master in await connections.masters():
        with suppress(redis.exceptions.MovedError):
            await master.exists(key)
            return master
    raise AssertionError(f"no server has {key}")


async def lasts(redis: Any, key: str) -> bool:
    """Say whether a key is there for ever; it may have gone since it was listed."""
    return bool(await redis.pttl(key) == -1)


async def unbounded(commands: Any, master: Any, keyspace: Keyspace, settings: Settings) -> list[str]:
    """Return what has no bound: keys nobody knows, operations without a TTL, members of indexes that nothing prunes.

    The keys are those of one `master`. Commands that name a key are sent with `commands`.
    """
    faults: list[str] = []
    due: set[str] = set()
    for lane in range(keyspace.lanes):
        due |= {
            member.decode().partition("\n")[0] for member in await commands.zrange(keyspace.lane(lane).expiry, 0, -1)
        }
    feeds = {keyspace.lane(lane).feed for lane in range(keyspace.lanes)}
    swept = {getattr(keyspace.lane(lane), name) for lane in range(keyspace.lanes) for name in ("expiry", "leases")}
    async for raw in master.scan_iter(count=1000):
        key = raw.decode()
        if key in (f"{keyspace.prefix}:meta", f"{keyspace.prefix}:secrets", f"{keyspace.prefix}:limits"):
            continue
        if key == f"{keyspace.prefix}:denied":
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
            continue
        if key.startswith(tuple(f"{keyspace.prefix}:{name}" for name in ("replica", "ask:", "answers:"))):
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
            continue
        if key in audit_keys(keyspace.prefix):
            if await commands.xlen(key) > LENGTH + SLACK:
                faults.append(f"{key} is longer than the audit may be")
            continue
        if key.startswith(f"{keyspace.prefix}:archived:"):
            if await commands.hlen(key) > keyspace.lanes:
                faults.append(f"{key} has more than a field a lane")
            continue
        if key.startswith((f"{keyspace.prefix}:archiver:", f"{keyspace.prefix}:copying")):
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
            continue
        if key.endswith(":expiry:policy"):
            continue
        if key.removesuffix(":length") in feeds and key not in feeds:
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
        elif key.removesuffix(":losses") in feeds and key not in feeds:
            if await lasts(commands, key) or await commands.xlen(key) > 64:
                faults.append(f"{key} has no bound")
        elif key in feeds:
            if await commands.xlen(key) > settings.feed_length + SLACK:
                faults.append(f"{key} is longer than feed_length")
        elif key.startswith(f"{keyspace.prefix}:newest:") or STAGING.fullmatch(key):
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
        elif OPERATION.fullmatch(key):
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
            if key.endswith(":events") and await commands.xlen(key) > settings.history_length + SLACK:
                faults.append(f"{key} is longer than history_length")
            if key.endswith(":kept") and await commands.xlen(key) > settings.history_length + SLACK:
                faults.append(f"{key} is longer than history_length")
            if key.endswith(":curve") and await commands.xlen(key) > 400:
                faults.append(f"{key} has more points than a curve")
            if key.endswith(":signals") and await commands.xlen(key) > 100 + SLACK:
                faults.append(f"{key} is too long")
        elif CALLER.fullmatch(key):
            if await lasts(commands, key):
                faults.append(f"{key} has no TTL")
        elif INDEX.fullmatch(key) or key in swept:
            members = {member.decode().partition("\n")[0] for member in await commands.zrange(key, 0, -1)}
            faults += [f"{key} holds {member}, which nothing will prune" for member in members - due]
        else:
            faults.append(f"{key} is none of the documented keys")
    return faults
