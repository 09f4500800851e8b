"""The cut-over: from the source, which nobody writes to any more, to a copy that is proven to be the same."""

import asyncio
from collections.abc import Callable
from functools import partial

from progress_broker.access.deny_list import DenyList
from progress_broker.copying.claim import check_unused
from progress_broker.copying.copier import Copier, retried
from progress_broker.copying.replicated import until_replicated
from progress_broker.errors import Conflict
from progress_broker.limits.principals import LimitsCopy
from progress_broker.model.operation import TERMINAL, Status
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations import retention
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.replicas.presence import present_replicas
from progress_broker.storage import versioned
from progress_broker.storage.keys import denied_key, limits_key, secrets_key
from progress_broker.transfer.redis.source import ids_of

LOOK_S = 0.5
"""How often to look whether the source is still used."""
REST_S = 1.0
"""How long nothing is written at the source before the last pass begins."""
LEAST_LEASE_MS = 60_000
"""How long a worker has to find the target, at least."""
_PASSES = 3

Say = Callable[[str], None]


async def cut_over(copier: Copier, say: Say, rest_s: float = REST_S) -> None:
    """Wait until nobody writes to the source, and finish the copy. `say` is told what is waited for.

    Raises `Conflict` if operations go on to differ though nothing changes at the source. Then the target stays a copy
    that is followed, and so it does if this breaks off before its end.
    """
    passes = 0
    while True:
        before = await _at_rest(copier, say, rest_s)
        await retried(partial(until_replicated, copier.target, say))
        differing = await copier.compare()
        if await copier.ends() != before or await _servers(copier):
            say("the source was written to during the last look: it is looked at again")
            continue
        if differing:
            passes += 1
            if passes == _PASSES:
                raise Conflict(
                    f"{differing} operations still differ from the source, though nothing changes there: is the clock"
                    " of the target right? Nothing was cut over"
                )
            continue
        await retried(partial(check_unused, copier.target))
        await retried(partial(finish, copier.source, copier.target))
        await retried(partial(until_replicated, copier.target, say))
        if await copier.agrees(before):
            break
        say("the source or the target has lost events, as after a failover: the copy is mended")
    await retried(copier.unmark)


async def _servers(copier: Copier) -> str:
    """Return the names of servers at the source."""
    present = await retried(partial(present_replicas, copier.source))
    return ", ".join(f"{state.id} at {state.host}" for state in present[:5])


async def _at_rest(copier: Copier, say: Say, rest_s: float) -> list[bytes]:
    """Wait until no server is at the source and nothing was written for a time; return where the feeds end then."""
    said = ""

    def tell(what: str) -> None:
        nonlocal said
        if what != said:
            say(what)
        said = what

    while True:
        if names := await _servers(copier):
            tell(f"waiting until the servers at the source are stopped: {names}")
            await asyncio.sleep(LOOK_S)
            continue
        await copier.caught_up()
        before = await copier.ends()
        await asyncio.sleep(rest_s)
        after = await copier.ends()
        if before == after and not await _servers(copier):
            return after
        busy = sum(one != other for one, other in zip(before, after, strict=True))
        tell(f"waiting until workers at the source are stopped: {busy} of {len(after)} lanes still get events")


async def finish(source: Store, target: Store) -> None:
    """Give the target what belongs to no operation: secrets, revocations, limits, the retention, and leases."""
    await _copy_hash(source, target, secrets_key)
    await _copy_hash(source, target, limits_key)
    await _copy_revocations(source, target)
    for word in (LimitsCopy.WORD, DenyList.WORD):
        await versioned.changed(target.connections, target.keyspace, word)
    kept = await retention.read(source)
    if kept != await retention.read(target):
        await retention.change(target, kept)
    await _set_leases(target)


async def _copy_hash(source: Store, target: Store, key_of: Callable[[str], str]) -> None:
    with storage_errors():
        fields = await source.connections.commands.hgetall(key_of(source.keyspace.prefix))
        key = key_of(target.keyspace.prefix)
        await target.connections.commands.delete(key)
        if fields:
            await target.connections.commands.hset(key, mapping=fields)


async def _copy_revocations(source: Store, target: Store) -> None:
    key, commands = denied_key(target.keyspace.prefix), target.connections.commands
    with storage_errors():
        listed = await source.connections.commands.zrange(denied_key(source.keyspace.prefix), 0, -1, withscores=True)
        await commands.delete(key)
        if listed:
            await commands.zadd(key, dict(listed))
            await commands.pexpireat(key, int(max(ms for _, ms in listed)) + 1000)


async def _set_leases(target: Store) -> None:
    """Give the workers of operations that have not ended some time, from now on, to find the target."""
    commands, keyspace = target.connections.commands, target.keyspace
    watched = frozenset(Status) - frozenset(TERMINAL) - {Status.PENDING}
    now_ms = round((await target.now()).timestamp() * 1000)
    async for ids in ids_of(target, Filters(statuses=watched)):
        deadlines: dict[str, dict[str, int]] = {}
        async with commands.pipeline(transaction=False) as pipeline:
            for id in ids:
                pipeline.hmget(keyspace.operation(id).snapshot, ("lease_ms", "lease_override_ms"))
            with storage_errors():
                leases = await pipeline.execute()
        for id, (lease_ms, longer_ms) in zip(ids, leases, strict=True):
            if lease_ms and lease_ms.isdigit() and int(lease_ms):
                longest_ms = max(int(lease_ms), int(longer_ms or 0), LEAST_LEASE_MS)
                deadlines.setdefault(keyspace.operation(id).lane.leases, {})[id] = now_ms + longest_ms
        for key, of_lane in deadlines.items():
            with storage_errors():
                await commands.zadd(key, of_lane)
