"""Row 17: the clock of the server that takes over is behind."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import driving
from tests.servers import need
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES, do

BEHIND_MS = 5025
"""Not a multiple of the time between two lines: they would often have the positions of those that were lost, which
nobody can tell apart who has only a position."""
BACK_S, TOLD_S = 8.0, 2.0


@pytest.fixture
def slow_clock(folder: Path) -> dict[str, str]:
    """The environment of a process whose clock is behind."""
    library = folder / "slow_clock.so"
    source = Path(__file__).with_name("slow_clock.c")
    subprocess.run([need("cc", "gcc"), "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    return os.environ | {"LD_PRELOAD": str(library), "CLOCK_BEHIND_MS": str(BEHIND_MS)}


@pytest.fixture
def cluster(folder: Path, slow_clock: dict[str, str]) -> Iterator[Cluster]:
    cluster = Cluster(folder / "cluster", replicas=1)
    for node in cluster.nodes[3:]:
        node.env = slow_clock
    with cluster:
        yield cluster


@pytest.fixture
def sentinels(folder: Path, slow_clock: dict[str, str]) -> Iterator[SentinelSet]:
    sentinels = SentinelSet(folder / "sentinels")
    for server in sentinels.servers[1:]:
        server.env = slow_clock
    with sentinels:
        yield sentinels


@pytest.mark.parametrize("cut_s", [0.0, 1.0])
def test_the_clock_of_a_promoted_node_is_behind(cluster: Cluster, folder: Path, cut_s: float) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        old = cluster.of_lane(0)
        hit = [lane for lane in range(LANES) if cluster.of_lane(lane) is old]
        if cut_s:
            cluster.cut_replication(old)
            time.sleep(cut_s)
        since = time.monotonic()
        new = cluster.failover(0, planned=not cut_s)
        back = time.monotonic()
        assert do(new, "TIME")[0] < time.time() - BEHIND_MS / 2000
        drive.await_publishing(back)
        gap, _ = drive.gaps(since, hit)
        outcome = drive.finish(
            f"cluster, the new master's clock is 5 s behind, replication cut {cut_s:g} s", since, back=back
        )
        assert gap <= BACK_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack


def test_the_clock_of_a_promoted_server_is_behind(sentinels: SentinelSet, folder: Path) -> None:
    with driving(sentinels.url, folder, sdk_url=sentinels.url) as drive:
        since = time.monotonic()
        sentinels.cut_replication(sentinels.master)
        time.sleep(1)
        sentinels.failover(planned=False)
        back = time.monotonic()
        drive.await_publishing(back)
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("sentinel, the new master's clock is 5 s behind", since, back=back)
        assert gap <= BACK_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack
