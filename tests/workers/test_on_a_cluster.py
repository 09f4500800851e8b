"""Workers on a Redis Cluster: a node that hangs, fails over, or hands over a slot costs its own operations only."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from progress_broker.operations.store import Store
from progress_broker.routing.slots import slot_of
from progress_workers import Operation, StorageUnavailable
from progress_workers.transport.registry import link_to
from tests.conftest import make_settings
from tests.servers import wait_until
from tests.topologies.cluster import Cluster
from tests.topologies.topology import LANES, do
from tests.workers.harness import KEYS, Broker, assert_whole, finished, python, worker

TIMEOUT_S = 30
"""Of a request: whoever waits for a server that hangs is held for so long, on any machine."""
HELD_S = 10


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", replicas=1) as cluster:
        yield cluster


@pytest.fixture
def broker(cluster: Cluster) -> Iterator[Broker]:
    broker = Broker(cluster.url, redis_timeout_s=TIMEOUT_S)
    broker.store_settings = make_settings(redis_url=cluster.url, redis_timeout_s=1)
    yield broker
    broker.redis.close()


def one_a_lane() -> list[str]:
    """Return the id of an operation in each lane."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < LANES:
        found.setdefault(KEYS.lane_of(f"operation-{number}"), f"operation-{number}")
        number += 1
    return [found[lane] for lane in range(LANES)]


class Work(threading.Thread):
    """Logs numbered lines in every operation."""

    def __init__(self, operations: list[Operation]) -> None:
        super().__init__()
        self._operations = operations
        self._ended = threading.Event()
        self.lines = 0

    def run(self) -> None:
        while not self._ended.wait(0.02):
            for operation in self._operations:
                operation.log(f"line {self.lines}")
            self.lines += 1

    def end(self) -> None:
        self._ended.set()
        self.join()


def events(cluster: Cluster, operation: str) -> int:
    """Return how many events of an operation are stored at the node that has it now."""
    return int(do(cluster.of_lane(KEYS.lane_of(operation)), "HGET", KEYS.operation(operation).snapshot, "n"))


def longest_gap_s(broker: Broker, operation: str) -> float:
    """Return the longest time between two events that are stored, by Redis' clock."""
    entries = broker.redis.xrange(KEYS.operation(operation).log)
    times = [int(position.partition(b"-")[0]) for position, _ in entries]
    return max(after - before for before, after in pairwise(times)) / 1000


def test_a_node_that_refuses_writes_hangs_fails_over_or_hands_over_costs_its_own_operations_only(
    cluster: Cluster, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    ids = one_a_lane()
    meta = cluster.of_slot(slot_of("pb:meta"))  # without which no other process could begin
    hung = next(node for node in cluster.nodes[1:3] if node is not meta)  # the test itself asks the first one
    lane, *_, last = (lane for lane in range(LANES) if cluster.of_lane(lane) is hung)
    others = [id for at, id in enumerate(ids) if cluster.of_lane(at) is not hung]
    own = [id for id in ids if id not in others]
    caplog.set_level(logging.WARNING, "progress_workers")
    with ExitStack() as stack:
        options = {"settings": broker.settings, "interval_s": 0.05, "lease_s": 60}
        operations = {id: stack.enter_context(Operation.start("x", id=id, **options)) for id in ids}
        work = Work(list(operations.values()))
        stack.callback(work.end)
        work.start()

        def go_on(some: list[str]) -> None:
            stored = {id: events(cluster, id) for id in some}
            wait_until(lambda: all(events(cluster, id) > stored[id] + 5 for id in some), "they go on")

        go_on(ids)
        do(hung, "CONFIG", "SET", "min-replicas-to-write", 5)
        wait_until(
            lambda: all(f"rejected progress of operation {id}" in caplog.text for id in own), "it refuses writes"
        )
        go_on(others)
        assert "progress could not be sent" not in caplog.text
        do(hung, "CONFIG", "SET", "min-replicas-to-write", 0)
        go_on(ids)
        cluster.stop(hung)
        go_on(others)
        with suppress(StorageUnavailable):  # the lanes that are away may have children of it
            broker.cancel(others[0])
        wait_until(lambda: operations[others[0]].cancelled, "a cancel arrives")
        began = time.monotonic()
        late = stack.enter_context(Operation.start("x", id=f"late-{_near(own[0])}", **options))
        assert time.monotonic() - began < HELD_S
        wait_until(lambda: cluster.of_lane(lane) is not hung, "its replica is promoted")
        go_on(ids)
        late.flush()
        assert broker.show(late.id).status == "running"
        for id in others:
            assert longest_gap_s(broker, id) < HELD_S
        told = [record.message for record in caplog.records if f"127.0.0.1:{hung.port}" in record.message]
        assert len(told) <= 1, told
        cluster.cont(hung)

        cluster.move_slot(lane)
        go_on(ids)
        cluster.failover(last, planned=True)
        go_on(ids)
        for id in own:
            broker.cancel(id)
        wait_until(lambda: all(operations[id].cancelled for id in own), "cancels arrive where they moved to")
        work.end()
        assert all(operation.flush() for operation in operations.values())
        for operation in operations.values():
            operation.succeed()
    for id in ids:
        assert broker.logged(id) == [f"line {number}" for number in range(work.lines)]
        assert_whole(broker.events(id))


def _near(operation: str) -> int:
    """Return a number with which an operation is in the same lane."""
    return next(number for number in range(10_000) if KEYS.lane_of(f"late-{number}") == KEYS.lane_of(operation))


def test_nothing_is_read_of_operations_that_are_over(cluster_url: str) -> None:
    broker = Broker(cluster_url)
    ids = one_a_lane()[:2]
    settings = broker.settings.model_copy(update={"redis_timeout_s": 29.0})  # not those of other tests' operations
    waits = link_to(settings).carrier._signals  # type: ignore[attr-defined]

    def send(type: str) -> None:
        for id in ids:
            broker.redis.xadd(KEYS.operation(id).signals, {"t": type, "d": "null"})

    def sleep() -> bool:
        send("too late")
        return all(lane._streams._client is None for lane in waits._lanes.values())

    for _ in range(2):
        operations = [Operation.start("x", id=id, settings=settings) for id in ids]
        send("go")
        for operation in operations:
            assert next(operation.signals(timeout=30)).type == "go"
        assert len(waits._lanes) == 2
        for operation in operations:
            operation.succeed()
            assert operation.flush()
        wait_until(sleep, "the lanes' threads sleep, without a connection")
        for id in ids:  # as `delete` does, but the id is free at once
            for key in (KEYS.operation(id).snapshot, KEYS.operation(id).log):
                broker.redis.delete(key)
    broker.redis.close()


def test_a_forked_child_makes_connections_of_its_own(cluster_url: str) -> None:
    broker = Broker(cluster_url)
    code = f"""
    import os
    from contextlib import ExitStack
    from progress_workers import Operation

    def work(who):
        with ExitStack() as stack:
            operations = [stack.enter_context(Operation.start("x", id=f"{{id}}-{{who}}")) for id in {one_a_lane()[:6]}]
            for operation in operations:
                operation.log(who)
                operation.succeed()

    with Operation.start("x", id="parent") as parent:
        parent.log("before")
        parent.flush()
        child = os.fork()
        if child == 0:
            work("child")
            os._exit(0)
        work("forked")
        assert os.waitpid(child, 0)[1] == 0
        parent.log("after")
    """
    finished(python(cluster_url, code))
    assert broker.logged("parent") == ["before", "after"]
    for id in one_a_lane()[:6]:
        for who in ("child", "forked"):
            assert broker.logged(f"{id}-{who}") == [who]
            assert broker.show(f"{id}-{who}").status == "succeeded"
    broker.redis.close()


SPOOLS = """
    import sys, time
    from progress_workers import Operation

    options = {{"interval_s": 0.01, "lease_s": 600}}
    operations = [Operation.start("x", id=id, required=True, **options) for id in {running!r}]
    print("running", flush=True)
    sys.stdin.readline()
    operations += [Operation.start("x", id=id, **options) for id in {late!r}]
    for line in "first", "second":
        for operation in operations:
            operation.log(line)
        stored = [operation.flush(60) for operation in operations]
    print(all(stored), flush=True)
    time.sleep(600)
"""


def test_the_spool_of_a_node_that_is_away_holds_back_its_own_operations_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    monkeypatch.setenv("PROGRESS_SPOOL_DIR", str(spool))
    monkeypatch.setenv("PROGRESS_REDIS_TIMEOUT_S", "1")
    with Cluster(tmp_path / "cluster") as cluster, ExitStack() as stack:
        broker = Broker(cluster.url)
        stack.callback(broker.redis.close)
        meta = cluster.of_slot(slot_of("pb:meta"))
        away = next(node for node in cluster.nodes[1:] if node is not meta)
        lanes = [cluster.of_lane(lane) is away for lane in range(LANES)]
        here = _ids("here", lanes.index(True)), _ids("here", lanes.index(False))
        left = _ids("left", lanes.index(True)), _ids("left", lanes.index(False))
        asyncio.run(_set_up(broker))
        code = SPOOLS.format(running=[ids[0] for ids in left], late=[ids[1] for ids in left])
        process = stack.enter_context(worker(cluster.url, code))
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        options = {"settings": broker.settings, "interval_s": 0.01, "lease_s": 600}
        operations = {id: Operation.start("x", id=id, required=True, **options) for id, _ in here}
        for node in cluster.nodes:
            cluster.stop(node)
        process.stdin.write("go on\n")
        process.stdin.flush()
        operations |= {id: Operation.start("x", id=id, **options) for _, id in here}
        for line in "first", "second":
            for operation in operations.values():
                operation.log(line)
            assert all(operation.flush(60) for operation in operations.values())
        assert process.stdout.readline() == "True\n"
        process.kill()
        process.wait(60)
        assert len(list(spool.glob("*.spool"))) == 2

        for node in cluster.nodes:
            if node is not away:
                cluster.cont(node)
        for operation in operations.values():
            operation.log("third")
        sender = link_to(broker.settings)._sender
        wait_until(lambda: all(len(broker.logged(id)) == 3 for id in here[1]), "what is here is sent")
        wait_until(lambda: all(len(broker.logged(id)) == 2 for id in left[1]), "what was left is sent")
        for number in range(20):  # for longer than it takes to try again
            operations[here[1][0]].log(f"line {number}")
            assert operations[here[1][0]].flush(60)
            assert not sender.away
            time.sleep(0.05)
        assert len(list(spool.glob("*.spool"))) == 2

        cluster.cont(away)
        wait_until(lambda: not list(spool.glob("*.spool")), "all is sent when the node is back")
        for operation in operations.values():
            operation.succeed()
            assert operation.flush(60)
        for id in (*left[0], *left[1], *here[0], *here[1]):
            assert_whole(broker.events(id))
            lines = [line for line in broker.logged(id) if not line.startswith("line ")]
            assert lines == ["first", "second", "third"][: 3 if id in operations else 2]


def _ids(name: str, lane: int) -> tuple[str, str]:
    """Return the ids of two operations of a lane."""
    found = (id for number in range(10_000) if KEYS.lane_of(id := f"{name}-{number}") == lane)
    return next(found), next(found)


async def _set_up(broker: Broker) -> None:
    async with await Store.open(broker.store_settings):
        pass
