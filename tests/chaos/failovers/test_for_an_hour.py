"""Row 20: faults of rows 1 to 8 come at random for an hour, and each is mended. Nothing is left behind."""

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.failovers.drive import Drive, driving
from tests.chaos.failovers.pair import Pair
from tests.servers import wait_until
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES

SOAK_S = float(os.environ["PROGRESS_SOAK_S"])
SHARES = {"cluster": 0.5, "sentinel": 0.3, "pair": 0.2}
"""Which part of the time each kind of Redis gets."""
RATE = 2.0
"""Lines a second of an operation: an hour of them must fit into a log."""
QUIET_S = 3.0
"""The longest time between two faults."""
CUT_S = (0.0, 0.6, 2.0)
HANGS_S = (0.5, 4.0, 8.0)
SAMPLES, SAMPLE_S = 12, 0.5
WARM = 3
"""After so many faults all pools have the connections that they need."""
MORE_FILES, MORE_TASKS, MORE_THREADS = 24, 8, 4
"""What may be open in the end that was not then: pools grow with the calls that happen to be made at once."""


class Faults(Protocol):
    """What can happen to a kind of Redis. Each fault mends what it broke."""

    url: str

    def all(self) -> dict[str, Callable[[], None]]: ...


class OfCluster:
    """Rows 1 to 3, and 5 to 7. Its servers are Valkey 9, whose slots move key by key, and all at once."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._cluster = stack.enter_context(Cluster(folder, replicas=1, server="valkey9"))
        self.url = self._cluster.url

    def all(self) -> dict[str, Callable[[], None]]:
        return {
            "killed": self.kill,
            "planned": self.hand_over,
            "hung": self.hang,
            "moved by keys": self.move_by_keys,
            "moved at once": self.move_at_once,
        }

    def kill(self) -> None:
        lane, cut_s = random.randrange(LANES), random.choice(CUT_S)
        old = self._cluster.of_lane(lane)
        if cut_s:
            self._cluster.cut_replication(old)
            time.sleep(cut_s)
        self._cluster.failover(lane, planned=False)
        old.start()
        self._cluster.heal_replication()
        self._cluster.await_whole()

    def hand_over(self) -> None:
        self._cluster.failover(random.randrange(LANES), planned=True)
        self._cluster.await_whole()

    def hang(self) -> None:
        old = self._cluster.of_lane(random.randrange(LANES))
        self._cluster.stop(old)
        time.sleep(random.choice(HANGS_S))
        self._cluster.cont(old)
        self._cluster.await_whole()

    def move_by_keys(self) -> None:
        self._cluster.move_slot(random.randrange(LANES))

    def move_at_once(self) -> None:
        self._cluster.move_slot(random.randrange(LANES), atomic=True)


class OfSentinelSet:
    """Rows 2, 4 and 5."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._set = stack.enter_context(SentinelSet(folder))
        self.url = self._set.url

    def all(self) -> dict[str, Callable[[], None]]:
        return {"killed": self.kill, "planned": self.hand_over, "hung": self.hang}

    def kill(self) -> None:
        old, cut_s = self._set.master, random.choice(CUT_S)
        if cut_s:
            self._set.cut_replication(old)
            time.sleep(cut_s)
        self._set.failover(planned=False)
        old.start()
        self._set.heal_replication()
        self._set.await_whole()

    def hand_over(self) -> None:
        self._set.failover(planned=True)
        self._set.await_whole()

    def hang(self) -> None:
        old = self._set.master
        self._set.stop(old)
        time.sleep(random.choice(HANGS_S))
        self._set.cont(old)
        self._set.await_whole()


class OfPair:
    """Row 8: the address leads to the replica, which has not all that the master had."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._pair = Pair(folder, stack)
        self.url = self._pair.proxy.url

    def all(self) -> dict[str, Callable[[], None]]:
        return {"flipped": self.flip}

    def flip(self) -> None:
        if cut_s := random.choice(CUT_S):
            self._pair.cut_replication()
            time.sleep(cut_s)
        self._pair.demote()
        self._pair.flip()
        self._pair.swap()
        self._pair.await_replica()


KINDS: dict[str, Callable[[Path, ExitStack], Faults]] = {
    "cluster": OfCluster,
    "sentinel": OfSentinelSet,
    "pair": OfPair,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def faults(kind: str, folder: Path) -> Iterator[Faults]:
    with ExitStack() as stack:
        yield KINDS[kind](folder / "redis", stack)


def test_faults_at_random_leave_nothing_behind(kind: str, faults: Faults, folder: Path) -> None:
    seconds, seen = SHARES[kind] * SOAK_S, Counter[str]()
    with driving(faults.url, folder, sdk_url=faults.url, rate=RATE) as drive:
        since = told_at = time.monotonic()
        warm: dict[str, int] = {}
        while time.monotonic() < since + seconds or not warm:
            name, fault = random.choice(list(faults.all().items()))
            fault()
            drive.await_publishing(time.monotonic())
            seen[name] += 1
            if seen.total() == WARM:
                warm = held(drive, max)
            if time.monotonic() > told_at + 60:
                told_at = time.monotonic()
                print(f"\n{told_at - since:,.0f} of {seconds:,.0f} s: {dict(seen)}, {open_now(drive)}", flush=True)
            time.sleep(random.uniform(0, QUIET_S))
        left = held(drive, min)
        assert metrics_of(drive)["lanes_away"] == 0
        drive.figures |= {"faults": dict(seen), "held after the first faults": warm, "in the end": left}
        drive.finish(f"{kind}, faults at random for {seconds:,.0f} s", since)
        more = {name: left[name] - warm[name] for name in left}
        assert all(many <= MORE_THREADS for name, many in more.items() if name.endswith("threads")), more
        assert all(many <= MORE_FILES for name, many in more.items() if name.endswith("files")), more
        assert more["server's tasks"] <= MORE_TASKS, more
        wait_until(lambda: not watched(drive), f"nothing is watched any more: {watched(drive)}")


def held(drive: Drive, of: Callable[[Iterable[int]], int]) -> dict[str, int]:
    """Return what the server and the workers have open: the least or the most of it within some seconds, in which
    watchers that were sent away come back."""
    samples = []
    for _ in range(SAMPLES):
        samples.append(open_now(drive))
        time.sleep(SAMPLE_S)
    return {name: of(sample[name] for sample in samples) for name in samples[0]}


def open_now(drive: Drive) -> dict[str, int]:
    processes: dict[str, Any] = {"server": drive.api}
    processes |= {f"worker {place}": worker.popen for place, worker in enumerate(drive.workers)}
    found = {f"{name}'s files": len(os.listdir(f"/proc/{each.pid}/fd")) for name, each in processes.items()}
    found |= {f"{name}'s threads": len(os.listdir(f"/proc/{each.pid}/task")) for name, each in processes.items()}
    return found | {"server's tasks": int(metrics_of(drive)["tasks"])}


def watched(drive: Drive) -> dict[str, float]:
    """Return what watchers left behind: they have all gone."""
    names = ("streams", "websockets", "operations_watched", "signal_requests")
    return {name: value for name, value in metrics_of(drive).items() if name in names and value}


def metrics_of(drive: Drive) -> dict[str, float]:
    """Return the server's metrics, without their prefix; of those with labels, the sum."""
    text = httpx.get(f"{drive.api.url}/metrics").raise_for_status().text
    return {
        family.name.removeprefix("progress_broker_"): sum(sample.value for sample in family.samples)
        for family in text_string_to_metric_families(text)
    }
