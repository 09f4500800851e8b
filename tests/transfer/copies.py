"""Copies of a Redis, and what both sides have."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from progress_broker.copying.copier import Copier
from progress_broker.model.event import PROGRESS
from progress_broker.model.operation import TERMINAL
from progress_broker.operations.store import Store
from progress_broker.transfer.redis.source import read_entries

COPIED_TO = {
    "redis": "cluster",
    "cluster": "second",
    "sentinel": "valkey9",
    "valkey8": "sentinel",
    "valkey9": "valkey8",
}
"""The kind of Redis to which one of each kind is copied: each is a source, and a target."""


@asynccontextmanager
async def copying(source: Store, target: Store) -> AsyncIterator[Copier]:
    """Claim a target."""
    copier = Copier(source, target)
    async with copier.claimed():
        yield copier


async def copy_once(source: Store, target: Store) -> Copier:
    """Copy until the target has all that the source has."""
    async with copying(source, target) as copier:
        await copier.following(copier.caught_up())
    return copier


async def contents(store: Store) -> dict[str, Any]:
    """Return what a Redis has of operations: all keys of lanes, by their names without the prefix."""
    commands, found = store.connections.commands, dict[str, Any]()
    for number in range(store.keyspace.lanes):
        lane = store.keyspace.lane(number)
        found[f"{number} feed"] = await commands.xrange(lane.feed)
        ids = [id.decode() for id in await commands.zrange(lane.index, 0, -1)]
        for name in ("index", "creation_order", "expiry"):
            found[f"{number} {name}"] = await commands.zrange(getattr(lane, name), 0, -1, withscores=True)
        for id in ids:
            found |= {f"{id} {name}": value for name, value in (await _operation(store, id)).items()}
    return found


async def _operation(store: Store, id: str) -> dict[str, Any]:
    """Return what an operation has, but for how far its older events have been moved: each side does that itself."""
    commands, keys = store.connections.commands, store.keyspace.operation(id)
    fields = await commands.hgetall(keys.snapshot)
    length = int(fields[b"history_length"])
    log = read_entries(await commands.xrange(keys.log))
    older = read_entries(await commands.xrange(keys.kept))
    others = [event for event in (*older, *log) if event.type != PROGRESS]
    found: dict[str, Any] = {"log": log[-min(length, 1_000) :], "others": others[-length:]}
    if fields[b"status"].decode() not in TERMINAL:
        found["signals"] = await commands.xrange(keys.signals)
    lines = [line for line in fields.get(b"indexes", b"").decode().split("\n") if line]
    for field, _, value in (line.partition(":") for line in (*lines, f"status:{fields[b'status'].decode()}")):
        found[f"{field}:{value}"] = await commands.zscore(keys.lane.index_of(field, value), id)
    own = (b"archived", b"curve_ms")
    return {"fields": {name: value for name, value in fields.items() if name not in own}, **found}
