"""Servers, workers and clients go over from a Redis to its copy: each client is told each event once."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

import orjson
import pytest

from progress_broker.access import deny_list
from progress_broker.copying.copier import Copier
from progress_broker.copying.cut_over import cut_over
from progress_broker.errors import Conflict, StorageUnavailable
from progress_broker.limits.principals import NewLimits, list_limits, set_limits
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.operations import retention
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from tests.chaos.client import Client
from tests.conftest import make_settings, url_of
from tests.servers import ApiReplica, RealRedis, eventually, free_port
from tests.topologies.kinds import ALL_BACKENDS
from tests.transfer.copies import COPIED_TO, contents, copy_once, copying
from tests.transfer.fleet import SUCCEEDED, make_fleet, publish
from tests.workers.proxy import Proxy

WORKERS, EVERY_S, LATE_S = 4, 0.02, 0.2
EVENTS = int(os.environ.get("PROGRESS_COPY_EVENTS", "1"))
"""How many events each publish has: with one, 200 a second in all; with ten, 2,000 a second, and for longer."""
LEAST = EVENTS * (60 if EVENTS == 1 else 500)
"""How many events each worker publishes on each side, at least."""
KINDS = ("redis", "sentinel", "cluster") if ALL_BACKENDS in os.environ else ("redis",)


class Worker:
    """Publishes to one operation, and sends again what was not answered."""

    def __init__(self, store: Store, id: str) -> None:
        self.store, self.id, self.seq, self.ending = store, id, 0, False

    async def run(self) -> None:
        due = time.monotonic()
        while not self.ending:
            events = [NewEvent("log", b'{"message":"line"}', "", "worker", self.seq + n) for n in range(1, EVENTS + 1)]
            self.seq += EVENTS
            await self._publish(events)
            due = max(due + EVERY_S, time.monotonic() - LATE_S)
            await asyncio.sleep(due - time.monotonic())
        await self._publish([SUCCEEDED.numbered("worker", self.seq + 1)])

    async def _publish(self, events: list[NewEvent]) -> None:
        while True:
            try:
                await self.store.publish(self.id, events)
                return
            except StorageUnavailable:
                await asyncio.sleep(EVERY_S)


class OfMany(Client):
    """Follows all operations of a kind until all have ended."""

    def __init__(self, kind: str, ids: list[str], ports: list[int]) -> None:
        super().__init__(kind, ports)
        self.path = f"/v1/stream?kind={kind}"
        self.told: dict[str, list[int]] = {}
        self._running = set(ids)

    def _event(self, block: bytes) -> None:
        lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"id" in lines:
            self.position = lines[b"id"]
        data = orjson.loads(lines.get(b"data", b"{}"))
        name, id, n = lines.get(b"event"), data.get("operation"), data.get("n")
        if id is None or n is None or name == b"bookmark":
            return
        if name == b"snapshot" and (id in self.told or "reset" in data):
            self.faults.append(f"{id} is told again: {block[:200]!r}")
        self.told.setdefault(id, []).append(n)
        if name == b"end":
            self._running.discard(id)
        if not self._running:
            self.ended = True
            self.cut()


async def lags(copier: Copier, found: list[float]) -> None:
    while True:
        found.append(await copier.lag_s())
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_client_is_told_each_event_once(kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
    """Connections of the copier to a single server are cut, and answers lost, while it copies."""
    ids = [f"w{n}" for n in range(WORKERS)]
    old_port, new_port, ports = free_port(), free_port(), [free_port() for _ in range(4)]
    async with AsyncExitStack() as stack:
        old = stack.enter_context(RealRedis(folder / "old", port=old_port))
        copy_proxy = stack.enter_context(Proxy(new_port))
        if kind == "redis":
            new_url, copy_url = stack.enter_context(RealRedis(folder / "new", port=new_port)).url, copy_proxy.url
        else:
            new_url = copy_url = url_of(kind, request)
        before = [stack.enter_context(ApiReplica(old.url, folder / f"old-{at}", ports[at], drain_s=1)) for at in (0, 1)]
        workers_proxy = stack.enter_context(Proxy(old_port))
        source = await stack.enter_async_context(await Store.open(make_settings(redis_url=old.url)))
        lanes = source.keyspace.lanes
        target = await stack.enter_async_context(await Store.open(make_settings(redis_url=copy_url, lanes=lanes)))
        through = await stack.enter_async_context(await Store.open(make_settings(redis_url=workers_proxy.url)))
        for id in ids:
            await source.create(NewOperation(id=id, kind="flip", lease_s=30, history_length=100_000))
        clients = [Client(id, ports) for id in ids[:3]]
        many = [OfMany("flip", ids, ports) for _ in range(3)]
        watching = [asyncio.create_task(client.run()) for client in (*clients, *many)]
        await eventually(lambda: all(len(it.told) == WORKERS for it in many), "all are followed")
        workers = [Worker(through, id) for id in ids]
        working = [asyncio.create_task(worker.run()) for worker in workers]

        said, behind_s, began = list[str](), list[float](), time.monotonic()
        async with copying(source, target) as copier:
            copied = asyncio.create_task(copier.following(cut_over(copier, said.append, rest_s=0.3)))
            looking = asyncio.create_task(lags(copier, behind_s))
            for cut in range(1, 6):  # while it copies
                await eventually(lambda cut=cut: min(it.seq for it in workers) > LEAST * cut / 5, "work goes on")  # type: ignore[misc]
                copy_proxy.losing = 2
                await asyncio.to_thread(copy_proxy.cut)
            copy_proxy.losing = 0
            rate = sum(it.seq for it in workers) / (time.monotonic() - began)
            assert not copied.done(), copied.result()
            await end(looking)
            workers_proxy.target, stopped = free_port(), time.monotonic()  # nobody is there
            await asyncio.to_thread(workers_proxy.cut)
            for replica in before:
                await asyncio.to_thread(replica.stop)
            await copied
        took_s = time.monotonic() - stopped
        assert said[0].startswith("waiting until the servers at the source are stopped: ")
        for at in (2, 3):
            server = ApiReplica(new_url, folder / f"new-{at}", ports[at], drain_s=1)
            await asyncio.to_thread(stack.enter_context, server)
        there = await stack.enter_async_context(await Store.open(make_settings(redis_url=new_url)))
        went_over_at = min(it.seq for it in workers)
        for worker in workers:
            worker.store = there
        await eventually(lambda: min(it.seq for it in workers) > went_over_at + LEAST, "work goes on there")
        for worker in workers:
            worker.ending = True
        await asyncio.gather(*working, *watching)
        published = {id: (await there.get(id)).events for id in ids}
    print(
        f"copy to {kind}: {rate:,.0f} events/s, {median(behind_s):.2f} s behind (at most {max(behind_s):.2f}), cut over"
        f" in {took_s:.1f} s, {sum(published.values()):,} events to each client of all of them"
    )
    assert [fault for client in (*clients, *many) for fault in client.faults] == []
    assert copier.lost == []
    assert published == {worker.id: worker.seq + 2 for worker in workers}  # pending, and the end
    for client in clients:
        assert client.numbers == list(range(1, published[client.operation] + 1))
    for each in many:
        assert each.told == {id: list(range(1, published[id] + 1)) for id in ids}


@pytest.fixture(params=COPIED_TO.items() if ALL_BACKENDS in os.environ else [("redis", "second")], ids="-".join)
def urls(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The addresses of two empty Redis."""
    source, target = request.param
    return url_of(source, request), url_of(target, request)


async def test_a_copy_that_is_cut_over_is_a_redis_like_others(urls: tuple[str, str]) -> None:
    """With all that belongs to no operation, leases that begin now, and no way back to a copy."""
    async with (
        await Store.open(make_settings(redis_url=urls[0])) as store,
        await Store.open(make_settings(redis_url=urls[1], lanes=16, prefix="other")) as target,
    ):
        await make_fleet(store)
        await deny_list.revoke_claim(store, "sub", "bob", 60)
        await set_limits(store, "ann", NewLimits(streams=3), "root")
        await store.connections.commands.hset("pb:secrets", "tickets", "secret")
        await retention.change(store, retention.Retention(7_200, 86_400))
        async with copying(store, target) as copier:
            await copier.following(cut_over(copier, pytest.fail, rest_s=0.01))
        leases = {}
        for number in range(16):
            lane = target.keyspace.lane(number)
            leases |= dict(await target.connections.commands.zrange(lane.leases, 0, -1, withscores=True))
        now_ms = (await target.now()).timestamp() * 1000
        assert set(leases) == {b"running", b"stalled"}
        assert all(50_000 < ms - now_ms <= 60_000 for ms in leases.values())
        assert await retention.read(target) == await retention.read(store)
        assert [it.value for it in (await deny_list.list_revoked(target, 0, 9))[0]] == ["bob"]
        assert [it.streams for it in await list_limits(target)] == [3]
        assert await target.connections.commands.hgetall("other:secrets") == {b"tickets": b"secret"}
        assert await contents(target) == await contents(store)
        await publish(target, "running", *range(30, 40))
        assert (await target.get("running")).events > (await store.get("running")).events
        with pytest.raises(Conflict, match="neither empty nor a copy"):
            await copy_once(store, target)


async def test_it_waits_until_nobody_writes_to_the_source(urls: tuple[str, str]) -> None:
    async with (
        await Store.open(make_settings(redis_url=urls[0])) as store,
        await Store.open(make_settings(redis_url=urls[1], lanes=16)) as target,
    ):
        await store.create(NewOperation(id="a"))
        said: list[str] = []
        heard = asyncio.Event()

        def hear(what: str) -> None:
            said.append(what)
            heard.set()

        async def until(met: Callable[[], object]) -> None:
            n = 0
            while not met():
                n += 1
                await publish(store, "a", n)
                await asyncio.sleep(0.01)

        async with copying(store, target) as copier:
            going = asyncio.create_task(copier.following(cut_over(copier, hear, rest_s=0.2)))
            await until(heard.is_set)
            assert "waiting until workers at the source are stopped: 1 of 16 lanes" in said[0]
            await going
        assert await contents(target) == await contents(store)
