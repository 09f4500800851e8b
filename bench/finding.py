"""Finding among 100,000 operations: what a page takes Redis in its slowest script and in all, and the caller; counts,
and a walk over all. Exits with 1 if the median of a script is over 10 ms, or that of a page over 20 ms.
"""

import asyncio
import sys
import time
from typing import Any, NamedTuple

import orjson
from rich.table import Table

from bench.harness import Spread, note, options, read_options, report, settings_for
from bench.processes import Cores, PrivateRedis
from progress_broker.model.operation import Status
from progress_broker.operations.store import Store
from progress_broker.queries.choice import Order
from progress_broker.queries.counts import count
from progress_broker.queries.filters import Filters, Span
from progress_broker.queries.page import find_page
from progress_broker.queries.walk import walk
from progress_broker.storage.scripts import SCHEMA

OPERATIONS, QUICK = 100_000, 4_000
MOST_SCRIPT_MS, MOST_PAGE_MS = 10.0, 20.0
FIRST_MS = 1_795_000_000_000
CALLS = 20

WRITE = """
for _, it in ipairs(cjson.decode(ARGV[3])) do
  local i, ms, kind, owner, status = unpack(it)
  local id, indexes = 'o' .. i, 'kind:' .. kind .. '\\nowner:' .. owner .. '\\ntag:t' .. (i % 10)
  local spec = '{"kind":"' .. kind .. '","owner":"' .. owner .. '","title":"Number ' .. i .. '","tags":["t' .. (i % 10)
    .. '"]}'
  redis.call('HSET', ARGV[2] .. id, 'schema', ARGV[4], 'status', status, 'position', ms .. '-1', 'n', '1',
    'created', ms, 'spec', spec, 'indexes', indexes, 'progress', '{"percent":40}', 'worker', 'w' .. (i % 50))
  if status == 'failed' then
    redis.call('HSET', ARGV[2] .. id, 'finished', ms, 'outcome',
      '{"status":"failed","error":{"type":"timeout","message":"no answer"}}')
  end
  redis.call('ZADD', ARGV[1], ms, id)
  redis.call('ZADD', ARGV[1] .. ':order:created', ms, id)
  for line in string.gmatch(indexes .. '\\nstatus:' .. status, '[^\\n]+') do
    redis.call('ZADD', ARGV[1] .. ':' .. line, ms, id)
  end
end
"""


class Cost(NamedTuple):
    """What calls took, in milliseconds."""

    slowest_script: float
    redis: float
    """All commands and scripts of one call."""
    caller: float


async def fill(store: Store, number: int) -> None:
    """Write operations as they look, which is faster than to create them: one in a hundred is of kind `rare`."""
    lanes: dict[int, list[Any]] = {}
    for i in range(number):
        kind, owner = "rare" if i % 100 == 0 else "abc"[i % 3], f"u{i % 5}"
        status = ("running", "failed", "running", "pending")[i % 4]
        row = (i, str(FIRST_MS + 40 * i), kind, owner, status)
        lanes.setdefault(store.keyspace.lane_of(f"o{i}"), []).append(row)
    for lane, rows in lanes.items():
        keys = store.keyspace.lane(lane)
        for at in range(0, len(rows), 500):
            some = orjson.dumps(rows[at : at + 500])
            await store.connections.commands.eval(WRITE, 0, keys.index, keys.operations, some, SCHEMA)


async def cost_of(store: Store, call: Any) -> Cost:
    """Return the cost of a call, as Redis tells it and as the caller sees it."""
    client = store.connections.commands
    await call()  # loads the scripts
    await client.config_set("slowlog-log-slower-than", 0)
    await client.config_set("slowlog-max-len", 5_000)
    await client.slowlog_reset()
    began = time.perf_counter()
    await call()
    caller_ms = 1000 * (time.perf_counter() - began)
    entries = await client.slowlog_get(5_000)
    await client.config_set("slowlog-log-slower-than", -1)
    taken = [(entry["command"].split()[0].upper(), entry["duration"] / 1000) for entry in entries]
    scripts = [ms for name, ms in taken if name == b"EVALSHA"]
    return Cost(max(scripts, default=0.0), sum(ms for name, ms in taken if name != b"SLOWLOG"), caller_ms)


def cases(store: Store, number: int) -> dict[str, Any]:
    """Return the calls to measure; those whose name begins with `page` have bounds."""
    last = FIRST_MS + 40 * number
    filters = {
        "all": Filters(),
        "a rare kind": Filters(kinds=("rare",)),
        "kind and owner": Filters(kinds=("a",), owners=("u1",)),
        "statuses and tag": Filters(statuses=frozenset({Status.RUNNING, Status.PENDING}), tags=("t3",)),
        "text that is nowhere": Filters(text="nowhere"),
        "error": Filters(statuses=frozenset({Status.FAILED}), error="no answer"),
        "idle": Filters(statuses=frozenset({Status.RUNNING}), changed=Span(None, last - 60_000)),
        "created in an hour": Filters(created=Span(FIRST_MS, FIRST_MS + 3_600_000)),
    }
    found: dict[str, Any] = {}
    for name, chosen in filters.items():
        for order in (Order.CHANGED, Order.CREATED):
            found[f"page of {name}, by {order.value}"] = lambda chosen=chosen, order=order: find_page(
                store, chosen, order=order
            )
    found["counts of a kind"] = lambda: count(store, Filters(kinds=("a",)))
    found["counts by status"] = lambda: count(store, Filters())
    return found


async def measure(url: str, given: Any) -> tuple[dict[str, dict[str, Spread]], dict[str, float]]:
    number = QUICK if given.quick else OPERATIONS
    async with await Store.open(settings_for(url)) as store:
        await fill(store, number)
        note(f"{number:,} operations written")
        figures: dict[str, dict[str, Spread]] = {}
        for name, call in cases(store, number).items():
            costs = [await cost_of(store, call) for _ in range(1 if given.quick else given.rounds * 3)]
            figures[name] = {field: Spread.of([getattr(it, field) for it in costs]) for field in Cost._fields}
            note(f"{name}: {figures[name]['caller'].text(1)} ms")
        began, told = time.perf_counter(), 0
        async for part in walk(store, Filters()):
            told += len(part.operations)
        walked_s = time.perf_counter() - began
        if told != number:
            raise AssertionError(f"the walk told {told} of {number} operations")
        return figures, {"operations": number, "walk_s": walked_s}


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=1)
    given = read_options(parser)
    with PrivateRedis(Cores.split().others) as redis:
        figures, others = asyncio.run(measure(redis.url, given))
        table = Table(title=f"finding among {others['operations']:,} operations, ms")
        for title in ("call", "slowest script", "Redis", "caller"):
            table.add_column(title, justify="left" if title == "call" else "right")
        for name, spreads in figures.items():
            table.add_row(name, *(spreads[field].text(1) for field in Cost._fields))
        table.add_row("walk over all", "", "", f"{1000 * others['walk_s']:,.0f}")
        bounded = {name: spreads for name, spreads in figures.items() if name.startswith("page")}
        passed = all(it["slowest_script"].median <= MOST_SCRIPT_MS for it in figures.values()) and all(
            it["caller"].median <= MOST_PAGE_MS for it in bounded.values()
        )
        results = [
            {"case": name} | {field: it.json() for field, it in spreads.items()} for name, spreads in figures.items()
        ]
        report("finding", redis, given, table, {"results": results, "passed": passed, **others})
    return 0 if passed or given.quick else 1


if __name__ == "__main__":
    sys.exit(main())
