"""How long each script holds Redis, at the largest sizes that limits and default settings allow: meanwhile Redis does
nothing else. Exits with 1 if the median of a script's calls is over 10 ms.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from rich.table import Table

from bench.harness import Spread, note, options, read_options, report, settings_for
from bench.processes import Cores, PrivateRedis
from progress_broker.access import deny_list
from progress_broker.history import event_log
from progress_broker.model.children import MAX_READ
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import MAX_TAGS, NewOperation, NewSignal
from progress_broker.nodes.calls import Call
from progress_broker.nodes.run import run
from progress_broker.operations import index_search, retention, rollup
from progress_broker.operations.commands import all_keys, create_call, publish_call
from progress_broker.operations.store import Store
from progress_broker.queries.counts import count
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.queries.scan import walk_call
from progress_broker.replicas.lease import Lease
from progress_broker.storage.schema import ensure_schema
from progress_broker.storage.scripts import HOLD, MIRROR, MIRROR_FEED, SCHEMA, SPEND
from progress_broker.transfer.files.operation_line import portable
from progress_broker.transfer.redis.source import read_one
from progress_broker.transfer.redis.staging import Staging
from progress_server.routes.publish import AT_ONCE, AT_ONCE_BYTES, MAX_BATCH

MOST_MS = 10.0
HISTORY = 1_000
"""The default number of events that are kept."""
MAX_PAGE = 1_000
"""The most events that a call for history takes."""
UNBOUNDED = "publish, all or none: "
"""Cases without a bound: a list that is stored whole or not at all can not be divided. It is measured all the same."""
LANE = 0
TAGS = [f"t{number}" for number in range(MAX_TAGS)]
Case = Callable[["Largest"], Awaitable[Callable[[], Awaitable[Any]]]]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Name a case: it prepares Redis, and returns the call to measure."""

    def named(prepare: Case) -> Case:
        CASES[name] = prepare
        return prepare

    return named


class Largest:
    """Operations of the largest sizes, all in one lane."""

    def __init__(self, store: Store) -> None:
        self.store, self.client = store, store.connections.commands
        self._names = (f"o{n}" for n in range(10**9) if store.keyspace.lane_of(f"o{n}") == LANE)

    def name(self) -> str:
        return next(self._names)

    def new(self, id: str, **more: Any) -> NewOperation:
        given = {"id": id, "kind": "k" * 100, "owner": "ann", "title": "t" * 200, "tags": TAGS}
        return NewOperation.model_validate(given | more)

    async def full(self, size: int, events: int = HISTORY, **more: Any) -> str:
        """Create an operation with a history of events of this size."""
        id = self.name()
        await self.store.create(self.new(id, **more))
        step = max(1, min(MAX_BATCH, 4_000_000 // size))
        for first in range(1, events + 1, step):
            await self.store.publish(id, [log(size, "p", seq) for seq in range(first, min(first + step, events + 1))])
        return id

    async def running(self, number: int, indexes: Iterable[str]) -> list[str]:
        """Write operations as they look while they run."""
        ids, lane = [self.name() for _ in range(number)], self.store.keyspace.lane(LANE)
        fields = {"schema": SCHEMA, "status": "running", "position": "1795000000000-1", "created": "1795000000000"}
        fields |= {
            "indexes": "\n".join(indexes),
            "spec": '{"kind":"job"}',
            "progress": f'{{"message":"{"m" * 1_000}"}}',
        }
        for first in range(0, number, 1_000):
            pipeline = self.client.pipeline(transaction=False)
            for at, id in enumerate(ids[first : first + 1_000], first):
                pipeline.hset(self.store.keyspace.operation(id).snapshot, mapping=fields)
                for index in ("status:running", *indexes):
                    pipeline.zadd(f"{lane.index}:{index}", {id: 1795000000000 + at})
            await pipeline.execute()
        return ids


def log(size: int, producer: str = "", seq: int | None = None) -> NewEvent:
    return NewEvent("log", b'{"message":"%b"}' % (b"x" * (size - 14)), "", producer, seq)


@case("create: all indexes")
async def _create(largest: Largest) -> Callable[[], Awaitable[Any]]:
    store, id = largest.store, largest.name()
    return lambda: run(largest.client, create_call(id, store.keyspace.operation(id), largest.new(id), store.settings))


@case("publish: 250 log lines of a worker")
async def _publish_lines(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(300)
    return lambda: largest.store.publish(id, [log(300, "q", seq) for seq in range(1, 251)])


@case("publish: a heartbeat that says which event it follows")
async def _heartbeat(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(300)
    call = publish_call(id, largest.store.keyspace.operation(id), [], after=("p", HISTORY))
    return lambda: run(largest.client, call)


@case("publish: NDJSON, as many as one call stores")
async def _publish_ndjson(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(300)
    return lambda: largest.store.publish(id, [log(AT_ONCE_BYTES // AT_ONCE, "q", seq) for seq in range(1, AT_ONCE + 1)])


@case(UNBOUNDED + "a list of 1,000 events, 4 MB")
async def _publish_many(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(100, 1)
    return lambda: largest.store.publish(id, [log(4_000)] * MAX_BATCH)


@case(UNBOUNDED + "a list of 64 events of 64 KiB")
async def _publish_large(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(60_000)
    return lambda: largest.store.publish(id, [log(65_000)] * 64)


@case(UNBOUNDED + "a list of 1,000 events of as many producers")
async def _publish_producers(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(100, 1)
    events = [log(100, f"{number}-{'p' * 60}", 1) for number in range(MAX_BATCH)]
    return lambda: largest.store.publish(id, events)


@case("publish: a repeat from the start of a full history")
async def _publish_repeat(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(60_000)
    return lambda: largest.store.publish(id, [log(100, "p", 2)])


@case("publish: an event that moves 100 large ones out of the log")
async def _publish_moves(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(60_000, HISTORY + 98)  # and the event of the creation
    return lambda: largest.store.publish(id, [log(60_000)])


@case("publish: an event that thins a full curve")
async def _publish_thins(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(100, 1)
    point = NewEvent("progress", b'{"message":"%b"}' % (b"x" * 16_000))
    for at in range(15):
        await largest.store.publish(id, [point] * (99 if at == 14 else 100))
    return lambda: largest.store.publish(id, [point])


@case("publish: a progress that is joined with what others say")
async def _publish_joined(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(100, 1)

    def said(part: int) -> NewEvent:
        metrics = ",".join(f'"m{part}-{n}":{n}' for n in range(600))
        stages = ",".join(
            f'{{"name":"s{part}-{n}","status":"running","current":1,"total":2,"percent":50}}' for n in range(64)
        )
        head = '"current":1,"total":null,"percent":null,"rate":null,"eta_ms":null'
        data = f'{{{head},"metrics":{{{metrics}}},"stages":[{stages}]}}'
        return NewEvent("progress", data.encode(), count=(1, 0))

    for part in range(2):
        await largest.store.publish(id, [said(part)])
    return lambda: largest.store.publish(id, [said(3)])


@case("publish: an end, with all indexes")
async def _publish_end(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(60_000)
    return lambda: largest.store.publish(id, [NewEvent("end", b'{"status":"succeeded"}', "succeeded")])


@case("signal: 64 KiB")
async def _signal(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(100, 1)
    for _ in range(150):
        await largest.store.signal(id, NewSignal(type="x", data="x" * 60_000))
    return lambda: largest.store.signal(id, NewSignal(type="x", data="x" * 60_000))


@case("delete: a full history of 60 MB")
async def _delete(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(60_000)
    return lambda: largest.store.delete(id, force=True)


@case("sweep: 3,000 that are due, with all indexes")
async def _sweep(largest: Largest) -> Callable[[], Awaitable[Any]]:
    lane, tags = largest.store.keyspace.lane(LANE), "\n".join(f"tag:t{number}" for number in range(MAX_TAGS))
    ids = await largest.running(3_000, [f"tag:t{number}" for number in range(MAX_TAGS)])
    await largest.client.zadd(lane.expiry, {f"{id}\n{tags}": 1 for id in ids})
    for id in ids[:300]:
        keys = largest.store.keyspace.operation(id)
        await largest.client.xadd(keys.log, {"d": "x" * 60_000})
        await largest.client.hset(keys.snapshot, "expires", "1")
    return largest.store.upkeep.sweep


@case("repair: 3,000 that the order of creation lacks")
async def _repair(largest: Largest) -> Callable[[], Awaitable[Any]]:
    ids = await largest.running(3_000, ["kind:job"])
    await largest.client.zadd(largest.store.keyspace.lane(LANE).index, dict.fromkeys(ids, 1))
    return largest.store.upkeep.repair


@case("walk: 250 of 3,000 with two tests each")
async def _walk(largest: Largest) -> Callable[[], Awaitable[Any]]:
    ids = await largest.running(3_000, ["kind:job", "owner:ann"])
    lane = largest.store.keyspace.lane(LANE)
    for key in (lane.index, lane.creation_order):
        await largest.client.zadd(key, {id: 1795000000000 + at for at, id in enumerate(ids)})
    arguments = ["CREATION", *("ANY", "kind:job"), *("ANY", "owner:ann"), "ROOTS", *("TEXT", "nothing")]
    return lambda: run(largest.client, walk_call(lane, 200, 250, arguments))


@case("count: 250 of 3,000 with two tests each")
async def _count(largest: Largest) -> Callable[[], Awaitable[Any]]:
    ids = await largest.running(3_000, ["kind:job", "owner:ann"])
    lane = largest.store.keyspace.lane(LANE)
    await largest.client.zadd(lane.index, {id: 1795000000000 + at for at, id in enumerate(ids)})
    filters = Filters(kinds=("job",), owners=("ann",), roots=True, text="nothing")
    return lambda: count(largest.store, filters)


@case("lapsed: 3,000 expired leases")
async def _lapsed(largest: Largest) -> Callable[[], Awaitable[Any]]:
    ids = await largest.running(3_000, ["kind:job"])
    await largest.client.zadd(largest.store.keyspace.lane(LANE).leases, dict.fromkeys(ids, 1))
    return largest.store.upkeep.expired_leases


@case("find: 10,000 that match")
async def _find_many(largest: Largest) -> Callable[[], Awaitable[Any]]:
    await largest.running(10_000, ["kind:job", "owner:ann"])
    terms = frozenset({b"kind:job", b"owner:ann"})
    return lambda: index_search.by_terms(largest.store, terms, {LANE: b"1-0"}, [LANE], 1_001)


@case("find: 10,000 of each of two that never meet")
async def _find_none(largest: Largest) -> Callable[[], Awaitable[Any]]:
    await largest.running(10_000, ["kind:job"])
    await largest.running(10_000, ["owner:ann"])
    terms = frozenset({b"kind:job", b"owner:ann"})
    return lambda: index_search.by_terms(largest.store, terms, {LANE: b"1-0"}, [LANE], 1_001)


@case("children: of one with too many")
async def _children(largest: Largest) -> Callable[[], Awaitable[Any]]:
    await largest.running(2 * MAX_READ, ["parent:p"])
    return lambda: rollup._load(largest.store.connections, largest.store.keyspace, {"p": 0})


@case("children: of many, each with some")
async def _grandchildren(largest: Largest) -> Callable[[], Awaitable[Any]]:
    parents = {f"p{number}": 0 for number in range(250)}
    for parent in parents:
        await largest.running(2, [f"parent:{parent}"])
    return lambda: rollup._load(largest.store.connections, largest.store.keyspace, parents)


@case("hold: 100 replicas")
async def _hold(largest: Largest) -> Callable[[], Awaitable[Any]]:
    key = largest.store.keyspace.caller("ann").streams
    for replica in range(100):
        await run(largest.client, Call(HOLD, (key,), (f"{replica:016}", "1", "600000", "1")))
    return lambda: run(largest.client, Call(HOLD, (key,), ("r", "1", "600000", "1", "LIMIT", "200")))


@case("spend")
async def _spend(largest: Largest) -> Callable[[], Awaitable[Any]]:
    key = largest.store.keyspace.caller("ann").requests
    return lambda: run(largest.client, Call(SPEND, (key,), ("1000", "1000000")))


@case("deny: a list of 10,000")
async def _deny(largest: Largest) -> Callable[[], Awaitable[Any]]:
    await largest.client.zadd(f"{largest.store.keyspace.prefix}:denied", {f"sub:{n}": 4e12 for n in range(10_000)})
    return lambda: deny_list.revoke_claim(largest.store, "sub", "bob", 60)


@case("meta")
async def _meta(largest: Largest) -> Callable[[], Awaitable[Any]]:
    return lambda: ensure_schema(largest.store.connections, largest.store.settings)


async def _with_older_events(largest: Largest, size: int, events: int = 2 * HISTORY) -> str:
    """Create an operation with a full log and curve, and so many events in both the log and the older events."""
    id = await largest.full(size, events)
    points = [
        NewEvent("progress", b'{"percent":%d,"message":"%b"}' % (n % 100, b"x" * (size // 8))) for n in range(400)
    ]
    for at in range(0, len(points), 50):
        await largest.store.publish(id, points[at : at + 50])
    for _ in range(20):
        await largest.store.publish(id, [log(size)] * 50)
    return id


@case("kept: a page from the start of all older events")
async def _kept(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await _with_older_events(largest, 300)
    return lambda: event_log.kept(largest.store, id, MAX_PAGE)


@case("kept: a page from the start of all older events of 20 MB")
async def _kept_large(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await _with_older_events(largest, 60_000, 300)
    return lambda: event_log.kept(largest.store, id, MAX_PAGE)


@case("history: a page of a full log (all its commands)")
async def _history(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(300)
    first = (await event_log.kept(largest.store, id, 1))[0].position.decode()
    return lambda: event_log.after(largest.store, id, first, MAX_PAGE)


@case("history: a page of a full log of 60 MB (all its commands)")
async def _history_large(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(60_000)
    first = (await event_log.kept(largest.store, id, 1))[0].position.decode()
    return lambda: event_log.after(largest.store, id, first, MAX_PAGE)


@case("retain: 100 operations")
async def _retain(largest: Largest) -> Callable[[], Awaitable[Any]]:
    lane = largest.store.keyspace.lane(LANE)
    await largest.client.zadd(lane.expiry, {f"{id}\n": 1 for id in await largest.running(1_000, ["kind:job"])})
    return lambda: retention.change(largest.store, retention.Retention(60, 60))


@case("set_fields")
async def _set_fields(largest: Largest) -> Callable[[], Awaitable[Any]]:
    return lambda: retention.change(largest.store, retention.Retention(60, 60))


@case("keep")
async def _keep(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(300)
    return lambda: retention.keep(largest.store, id, retention.PINNED)


@case("claim")
async def _claim(largest: Largest) -> Callable[[], Awaitable[Any]]:
    return lambda: Lease(largest.store, f"{largest.store.keyspace.prefix}:archiver:case", "a case").claim()


@case("probe")
async def _probe(largest: Largest) -> Callable[[], Awaitable[Any]]:
    return lambda: largest.store.probe(LANE, "~probe-1", b"1")


@case("stage: 100 events")
async def _stage(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(2_600, 100)
    copy = await read_one(largest.store, id)
    events = [event async for part in copy.events() for event in part][:100]

    async def stage() -> None:
        staging = Staging(largest.store, id, 0)
        await staging.add(events)
        await staging.sent()

    return stage


@case("adopt: all indexes, in place of another")
async def _adopt(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await _with_older_events(largest, 300)
    copy = await read_one(largest.store, id)
    staging = Staging(largest.store, id, int(copy.operation.fields[b"archived"]))
    async for part in copy.events():
        await staging.add(part)
    return lambda: staging.adopt(portable(copy.operation.fields), replace=True)


@case("mirror: 100 events, older ones are moved")
async def _mirror(largest: Largest) -> Callable[[], Awaitable[Any]]:
    id = await largest.full(2_600, 1_099)
    keys, commands = largest.store.keyspace.operation(id), largest.client
    fields = [word for pair in (await commands.hgetall(keys.snapshot)).items() for word in pair if pair[0] != b"n"]
    ms, n = 1_895_000_000_000, 1_100

    async def mirror() -> None:
        nonlocal ms, n
        [last] = await commands.xrevrange(keys.lane.feed, count=1)
        args: list[str | bytes] = [id, "IF_FEED", last[0], "SIGNALS"]
        for _ in range(100):
            ms, n = ms + 1, n + 1
            event = ("n", str(n), "t", "log", "d", b'{"message":"%b"}' % (b"x" * 2_586))
            args += ("EVENT", f"{ms}-0", "6", *event)
        await largest.store.connections.scripts.run(
            Call(MIRROR, all_keys(keys), [*args, "FIELDS", *fields, "n", str(n)])
        )

    return mirror


@case("mirror_feed: 100 entries")
async def _mirror_feed(largest: Largest) -> Callable[[], Awaitable[Any]]:
    feed = "{other}:feed"
    ms = 1_895_000_000_000

    async def mirror() -> None:
        nonlocal ms
        last = await largest.client.xrevrange(feed, count=1)
        args: list[str | bytes] = ["FEED", "10000", "IF_FEED", last[0][0] if last else "0-0"]
        for _ in range(100):
            ms += 1
            data = b'{"message":"%b"}' % (b"x" * 2_586)
            args += ("ENTRY", f"{ms}-0", "8", "o", "a", "n", "1", "t", "log", "d", data)
        await largest.store.connections.scripts.run(Call(MIRROR_FEED, (feed,), args))

    return mirror


@case("listing: 500 of large progress (all its commands)")
async def _listing(largest: Largest) -> Callable[[], Awaitable[Any]]:
    await largest.running(2_000, ["kind:other"])
    return lambda: find_page(largest.store, Filters(kinds=("other",)), limit=200)


async def held_ms(largest: Largest, call: Callable[[], Awaitable[Any]]) -> float:
    """Return how long the call held Redis: of several calls of scripts, the mean; without any, all its commands.

    It is the time or the CPU time of Redis, whichever is less: on a busy machine Redis waits for a core.
    """
    await largest.client.config_resetstat()
    before_s = await cpu_s(largest.client)
    await call()
    cpu_ms: float = 1000 * (await cpu_s(largest.client) - before_s)
    stats = await largest.client.info("commandstats")
    scripts = stats.get("cmdstat_evalsha")
    if scripts is not None:
        return min(float(scripts["usec_per_call"]) / 1000, cpu_ms / int(scripts["calls"]))
    commands_ms = sum(float(stat["usec"]) for name, stat in stats.items() if "config" not in name) / 1000
    return min(cpu_ms, commands_ms)


async def cpu_s(client: Any) -> float:
    found = await client.info("cpu")
    return float(found["used_cpu_user_main_thread"]) + float(found["used_cpu_sys_main_thread"])


async def measure(url: str, rounds: int) -> dict[str, Spread]:
    found = {}
    settings = settings_for(url).model_copy(update={"lanes": 1})  # so that one lane has all
    async with await Store.open(settings) as store:
        for name, prepare in CASES.items():
            taken = []
            for number in range(rounds + 1):
                await store.connections.commands.flushall()
                call = await prepare(Largest(store))
                if number == 0 and rounds > 1:  # loads the scripts; allocates
                    await call()
                else:
                    taken.append(await held_ms(Largest(store), call))
            found[name] = Spread.of(taken)
            note(f"{name}: {found[name].text(2)} ms")
    return found


def main() -> int:
    parser = options(__doc__, rounds=5, seconds=1)
    parser.add_argument("--no-check", action="store_true", help="do not exit with 1 if a bound is missed")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    given = read_options(parser)
    for name in [name for name in CASES if given.only not in name]:
        del CASES[name]
    with PrivateRedis(Cores.split().others) as redis:
        found = asyncio.run(measure(redis.url, given.rounds))
        table = Table(title=f"how long a call holds Redis, ms; bound {MOST_MS:g}")
        table.add_column("script and size")
        table.add_column("ms", justify="right")
        for name, spread in found.items():
            table.add_row(name, spread.text(2))
        passed = all(spread.median <= MOST_MS for name, spread in found.items() if not name.startswith(UNBOUNDED))
        results = [{"case": name, "ms": spread.json()} for name, spread in found.items()]
        report("redis_time", redis, given, table, {"results": results, "bound_ms": MOST_MS, "passed": passed})
    return 0 if passed or given.quick or given.no_check else 1


if __name__ == "__main__":
    sys.exit(main())
