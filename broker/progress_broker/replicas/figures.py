"""Figures of all that is in Redis: operations by status, the rate of events, memory, and workers."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel

from progress_broker.model.operation import TERMINAL, Operation, Status, Time
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.loading import load_each
from progress_broker.operations.store import Store
from progress_broker.replicas.presence import list_replicas
from progress_broker.storage.lanes import FanOut

MOST_LOOKED = 4_000
"""The maximum number of operations that one call looks at."""
RATE_S = 10
"""Over how many seconds the rate of events is measured."""
_MOST_EVENTS = 200  # a lane
_BUSIEST = 10
_OWN = b"~"
"""The first byte of names of the broker's own entries, such as probes."""
_UNFINISHED = tuple(status for status in Status if status not in TERMINAL)
_AT_WORK = (Status.RUNNING, Status.STALLED, Status.CANCELLING)


class Counts(BaseModel):
    """How many operations there are, and what is overdue."""

    operations: dict[str, int]
    """By status."""
    unfinished_idle_s: float
    """How long ago the operation changed that has not ended and has been without a change for the longest time."""
    expiry_overdue_s: float
    """How long the longest expired operation has waited to be removed."""
    leases_overdue_s: float
    """How long the longest expired lease has waited to be noticed."""
    lanes_away: list[int]
    """The lanes that could not be reached, and are missing here."""


class Busy(BaseModel):
    """An operation with many events."""

    id: str
    events_per_s: float
    """Of the last ten seconds, as those of all are."""


class Memory(BaseModel):
    """The memory of a server of Redis."""

    used_bytes: int
    max_bytes: int
    """0 is no limit."""


class Stats(BaseModel):
    """Figures of the whole installation."""

    at: Time
    counts: Counts
    events_per_s: float
    """Events of the last ten seconds, without the broker's own. Of a busy lane, of its last 200 events."""
    busiest: list[Busy] = []
    """The operations with most of them: ten at most."""
    replicas: int
    ready: int
    streams: int
    slowest_lag_s: float
    redis: list[Memory]


class WorkerState(BaseModel):
    """A worker with operations that have not ended."""

    worker: str
    operations: int
    stalled: int
    """How many of them are stalled: the worker has sent no heartbeat in time."""
    idle_s: float
    """How long the one without a change for the longest time has had none."""
    lease_left_s: float | None
    """How soon the first lease expires; None if none has a lease."""


class Workers(BaseModel):
    """The workers, those with the longest silence first."""

    workers: list[WorkerState]
    partial: bool
    """Whether there are more operations than were looked at, or lanes could not be reached."""


async def read_counts(store: Store) -> Counts:
    """Return how many operations there are. Raises `StorageUnavailable` if no lane can be reached."""
    now_ms = (await store.now()).timestamp() * 1000
    lanes = FanOut(store.connections, store.keyspace)
    found = list((await lanes.ask(lambda some: _count(store, some))).values())
    totals = [sum(numbers) for numbers in zip(*(counts for counts, _ in found), strict=True)]
    changes, expiries, leases = zip(*(firsts for _, firsts in found), strict=True)
    return Counts(
        operations=dict(zip(Status, totals, strict=True)),
        unfinished_idle_s=_overdue_s(now_ms, changes),
        expiry_overdue_s=_overdue_s(now_ms, expiries),
        leases_overdue_s=_overdue_s(now_ms, leases),
        lanes_away=sorted(lanes.away),
    )


_First = tuple[float | None, float | None, float | None]
"""The first scores of a lane: the oldest change of what has not ended, the next expiry, the next end of a lease."""


async def _count(store: Store, lanes: Sequence[int]) -> list[tuple[list[int], _First]]:
    of_lane = len(Status) + len(_UNFINISHED) + 2
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane in lanes:
            keys = store.keyspace.lane(lane)
            for status in Status:
                pipeline.zcard(keys.index_of("status", status))
            for key in (*(keys.index_of("status", status) for status in _UNFINISHED), keys.expiry, keys.leases):
                pipeline.zrange(key, 0, 0, withscores=True)
        with storage_errors():
            replies: list[Any] = await pipeline.execute()
    found: list[tuple[list[int], _First]] = []
    for at in range(0, len(replies), of_lane):
        counts, firsts = replies[at : at + len(Status)], replies[at + len(Status) : at + of_lane]
        *changes, expiry, lease = [float(first[0][1]) if first else None for first in firsts]
        found.append((counts, (min((it for it in changes if it is not None), default=None), expiry, lease)))
    return found


def _overdue_s(now_ms: float, scores: Sequence[float | None]) -> float:
    """Return how long ago the earliest of these times was; 0 if there is none, or if it is to come."""
    earliest = min((score for score in scores if score is not None), default=now_ms)
    return round(max(0.0, (now_ms - earliest) / 1000), 3)


async def read_stats(store: Store) -> Stats:
    """Return figures of the whole installation. Raises `StorageUnavailable`."""
    present = (await list_replicas(store)).replicas
    rates = await _rates(store)
    return Stats(
        at=await store.now(),
        counts=await read_counts(store),
        events_per_s=rates.total,
        busiest=rates.busiest,
        replicas=len(present),
        ready=sum(state.ready for state in present),
        streams=sum(state.streams for state in present),
        slowest_lag_s=max((state.lag_s for state in present), default=0.0),
        redis=await _memory(store),
    )


class Rates(NamedTuple):
    """How many events there are per second, and of which operations most."""

    total: float
    busiest: list[Busy]


async def _rates(store: Store) -> Rates:
    now_ms = (await store.now()).timestamp() * 1000

    async def read(lanes: Sequence[int]) -> list[dict[str, float]]:
        async with store.connections.commands.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                since = str(round(now_ms - RATE_S * 1000))
                pipeline.xrevrange(store.keyspace.lane(lane).feed, "+", since, count=_MOST_EVENTS)
            with storage_errors():
                replies = await pipeline.execute()
        return [_rates_of(entries, now_ms) for entries in replies]

    of_lanes = (await FanOut(store.connections, store.keyspace).ask(read)).values()
    each = sorted((item for lane in of_lanes for item in lane.items()), key=lambda item: (-item[1], item[0]))
    busiest = [Busy(id=id, events_per_s=round(rate, 2)) for id, rate in each[:_BUSIEST]]
    return Rates(round(sum(rate for _, rate in each), 2), busiest)


def _rates_of(entries: Sequence[Any], now_ms: float) -> dict[str, float]:
    """Return the events per second of each operation of a lane, from the newest entries of its feed."""
    span_s = float(RATE_S)
    if len(entries) == _MOST_EVENTS:
        span_s = max(0.001, (now_ms - int(entries[-1][0].partition(b"-")[0])) / 1000)
    fields = [dict(zip(pairs[::2], pairs[1::2], strict=False)) for _, pairs in entries]
    ids = [entry[b"o"] for entry in fields if b"n" in entry and not entry.get(b"o", _OWN).startswith(_OWN)]
    counts = Counter(id.decode("utf-8", "replace") for id in ids)
    return {id: count / span_s for id, count in counts.items()}


async def _memory(store: Store) -> list[Memory]:
    with storage_errors():
        reports = [await master.info("memory") for master in await store.connections.masters()]
    return [Memory(used_bytes=report.get("used_memory", 0), max_bytes=report.get("maxmemory", 0)) for report in reports]


async def read_workers(store: Store) -> Workers:
    """Return the workers of operations that have not ended. Raises `StorageUnavailable` if no lane can be reached."""
    most = max(1, MOST_LOOKED // store.keyspace.lanes)

    async def read(lanes: Sequence[int]) -> list[tuple[list[str], dict[str, float]]]:
        async with store.connections.commands.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                keys = store.keyspace.lane(lane)
                for status in _AT_WORK:
                    pipeline.zrange(keys.index_of("status", status), 0, most - 1)
                pipeline.zrange(keys.leases, 0, most - 1, withscores=True)
            with storage_errors():
                replies: list[Any] = await pipeline.execute()
        found = []
        for at in range(0, len(replies), len(_AT_WORK) + 1):
            *ids, leases = replies[at : at + len(_AT_WORK) + 1]
            names = [id.decode("utf-8", "replace") for some in ids for id in some][:most]
            found.append((names, {id.decode("utf-8", "replace"): float(ms) for id, ms in leases}))
        return found

    lanes = FanOut(store.connections, store.keyspace)
    found = (await lanes.ask(read)).values()
    ids = [id for names, _ in found for id in names]
    leases = {id: ms for _, of_lane in found for id, ms in of_lane.items()}
    loaded = [it[0] for it in await load_each(store.connections, store.keyspace, lanes, ids) if it is not None]
    now = await store.now()
    by_worker: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in loaded:
        by_worker[operation.worker or ""].append(operation)
    workers = [_worker(name, some, leases, now) for name, some in by_worker.items()]
    full = any(len(names) == most for names, _ in found)
    return Workers(workers=sorted(workers, key=lambda it: -it.idle_s), partial=full or bool(lanes.away))


def _worker(name: str, operations: Sequence[Operation], leases: dict[str, float], now: datetime) -> WorkerState:
    ends = [leases[operation.id] for operation in operations if operation.id in leases]
    return WorkerState(
        worker=name,
        operations=len(operations),
        stalled=sum(operation.status is Status.STALLED for operation in operations),
        idle_s=round(max((now - operation.updated_at).total_seconds() for operation in operations), 1),
        lease_left_s=round(min(ends) / 1000 - now.timestamp(), 1) if ends else None,
    )
