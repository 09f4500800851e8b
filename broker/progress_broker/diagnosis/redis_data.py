"""What is wrong with our data in Redis: whom they belong to, what is overdue, and what nothing would remove."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from progress_broker.diagnosis.bounded import all_of, bounded
from progress_broker.diagnosis.finding import Check, Finding, Level, said_and_fix
from progress_broker.diagnosis.replicas import examine_replicas
from progress_broker.errors import SetupError
from progress_broker.nodes.pool_settings import address_of
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.storage import lanes
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace, LaneKeys, meta_key
from progress_broker.storage.schema import META_FIELDS, read_meta

SWEEP_LATE_S = 60.0
LEASES_LATE_S = 30.0
_SAMPLE, _MOST = 200, 6_400
"""How many operations of a lane are looked at, and of all lanes of a server."""
_SOON_MS = 30_000
"""What expires within this time may be gone when it is looked at again."""
_SHOWN = 3

_NO_KEY, _NO_TTL = -2, -1
"""Replies to PTTL."""
_UPKEEP = (
    "start a server; if one runs, its log says why it does not: a permission is missing, or it can't reach these lanes"
)


async def examine_data(connections: Connections, settings: Settings, patience_s: float) -> list[Finding]:
    """Return what is wrong with the data. Nothing is written."""
    at = address_of(settings).shown
    keyspaces: list[Keyspace] = []
    found = await bounded(Check.KEYSPACE, at, _keyspace(connections, settings, at, keyspaces), patience_s)
    for keyspace in keyspaces:
        divided = lanes.lanes_by_node(connections, keyspace)
        checks = [bounded(Check.REPLICAS, at, examine_replicas(Store(connections, keyspace, settings), at), patience_s)]
        for numbers in divided:
            place = at if len(divided) == 1 else f"{lanes.shown(numbers)} of {at}"
            keys = [keyspace.lane(number) for number in numbers]
            (node,) = connections.by_node([lane.feed for lane in keys])
            checks.append(bounded(Check.SWEEP, place, _overdue(node.commands, keys, place), patience_s))
            checks.append(bounded(Check.ORPHANS, place, _sampled(node.commands, keys, place), patience_s))
        found += await all_of(*checks)
    return found


async def _keyspace(
    connections: Connections, settings: Settings, at: str, keyspaces: list[Keyspace]
) -> Iterable[Finding]:
    """Look at what all programs must agree on. The keyspace is added to a list, also where only our lanes differ."""
    known = await connections.commands.hmget(meta_key(settings.prefix), META_FIELDS)
    if None in known:
        return [
            Finding(
                Check.KEYSPACE,
                Level.FAULT,
                at,
                f"nothing is stored under the prefix {settings.prefix!r}: no server has used this Redis with it yet",
                "start a server (`progress-broker serve`), or correct PROGRESS_REDIS_URL or PROGRESS_PREFIX",
            )
        ]
    try:
        keyspaces.append(read_meta(known, settings))
    except SetupError as error:
        with suppress(SetupError):  # of another schema, or of another program: nothing else can be read
            keyspaces.append(read_meta(known, settings.model_copy(update={"lanes": None})))
        return [Finding(Check.KEYSPACE, Level.FAULT, at, *said_and_fix(error.detail))]
    return [Finding(Check.KEYSPACE, Level.GOOD, at, f"the prefix {settings.prefix!r} has {keyspaces[0].lanes} lanes")]


async def _overdue(node: Any, keys: Sequence[LaneKeys], at: str) -> Iterable[Finding]:
    """Return whether what expires is removed, and whether silent workers are noticed, in some lanes of one server."""
    async with node.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for lane in keys:
            pipeline.zrange(lane.expiry, 0, 0, withscores=True)
            pipeline.zrange(lane.leases, 0, 0, withscores=True)
        time, *first = readable(await pipeline.execute(raise_on_error=False))
    late_s = [(_ms(time) - times[0][1]) / 1000 if times else 0.0 for times in first]
    sweep_s, leases_s = (round(max(0.0, *late_s[which::2]), 3) for which in (0, 1))
    return [
        _late(
            Finding(Check.SWEEP, Level.GOOD, at, "expired operations are removed", figures={"late_s": sweep_s}),
            SWEEP_LATE_S,
            f"expired operations are not removed: the oldest has been due for {sweep_s:.0f} s",
        ),
        _late(
            Finding(Check.LEASES, Level.GOOD, at, "silent workers are noticed", figures={"late_s": leases_s}),
            LEASES_LATE_S,
            f"operations whose workers are silent are not ended: the oldest has been due for {leases_s:.0f} s",
        ),
    ]


def _late(good: Finding, most_s: float, said: str) -> Finding:
    return good if good.figures["late_s"] <= most_s else replace(good, level=Level.FAULT, said=said, fix=_UPKEEP)


async def _sampled(node: Any, keys: Sequence[LaneKeys], at: str) -> Iterable[Finding]:
    """Look at some operations of each lane; return how many of them have no data, and how many have no TTL."""
    async with node.pipeline(transaction=False) as pipeline:
        for lane in keys:
            pipeline.zrandmember(lane.index, min(_SAMPLE, 1 + _MOST // len(keys)))
        samples = readable(await pipeline.execute(raise_on_error=False))
    listed = [(lane, _text(id)) for lane, ids in zip(keys, samples, strict=True) for id in ids or ()]
    if not listed:
        return [Finding(Check.ORPHANS, Level.GOOD, at, "no operation is listed")]
    async with node.pipeline(transaction=False) as pipeline:
        for lane, id in listed:
            pipeline.pttl(lane.operations + id)
        left_ms = await pipeline.execute()
    gone = [one for one, left in zip(listed, left_ms, strict=True) if left == _NO_KEY]
    endless = [id for (_, id), left in zip(listed, left_ms, strict=True) if left == _NO_TTL]
    orphans = await _still_listed(node, gone)
    return [_of_sample(Check.ORPHANS, orphans, len(listed), at), _of_sample(Check.TTL, endless, len(listed), at)]


async def _still_listed(node: Any, gone: Sequence[tuple[LaneKeys, str]]) -> list[str]:
    """Return those that the next sweep does not remove because they have just expired, and that are listed still."""
    if not gone:
        return []
    async with node.pipeline(transaction=False) as pipeline:
        pipeline.time()
        for lane, id in gone:
            pipeline.zscore(lane.index, id)
        time, *scores = await pipeline.execute()
        lanes_of_gone = list(dict.fromkeys(lane for lane, _ in gone))
        for lane in lanes_of_gone:
            pipeline.zrangebyscore(lane.expiry, "-inf", _ms(time) + _SOON_MS, start=0, num=_MOST)
        due = await pipeline.execute()
    expiring = {
        (lane, _text(member.partition(b"\n")[0]))
        for lane, members in zip(lanes_of_gone, due, strict=True)
        for member in members
    }
    return [one[1] for one, score in zip(gone, scores, strict=True) if score is not None and one not in expiring]


_SAMPLED = {
    Check.ORPHANS: (
        "every listed operation has its data",
        "{} of {} listed operations that were looked at have no data, such as {}: somebody deleted their keys, or Redis"
        " lost them",
        "they leave the lists when they would have expired; give nobody else this Redis or its prefix, and see"
        " `eviction` and `persistence`",
    ),
    Check.TTL: (
        "every operation expires",
        "{} of {} operations that were looked at never expire, such as {}: somebody took their TTL away",
        "`progress-broker retention --ended 1d` sets it again, also for existing operations",
    ),
}


def _of_sample(check: Check, ids: Sequence[str], looked: int, at: str) -> Finding:
    good, said, fix = _SAMPLED[check]
    figures = {"found": len(ids), "looked_at": looked}
    if not ids:
        return Finding(check, Level.GOOD, at, good, figures=figures)
    return Finding(check, Level.WARNING, at, said.format(len(ids), looked, ", ".join(ids[:_SHOWN])), fix, figures)


def _text(id: bytes) -> str:
    return id.decode("utf-8", "replace")


def _ms(time: tuple[int, int]) -> float:
    return 1000 * time[0] + time[1] / 1000
