"""Row 5: a master hangs, with its connections open, and goes on later."""

import time
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import driving
from tests.servers import wait_until
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES

HANGS_S = 15.0
HIT_S, OTHERS_S, TOLD_S = 10.0, 0.5, 2.0


@pytest.mark.parametrize("way", ["redis", "http"])
def test_a_master_of_a_cluster_hangs(cluster: Cluster, folder: Path, way: str) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url if way == "redis" else None) as drive:
        old = cluster.of_lane(0)
        hit = [lane for lane in range(LANES) if cluster.of_lane(lane) is old]
        since = time.monotonic()
        cluster.stop(old)
        wait_until(lambda: cluster.of_lane(0) is not old, "its replica is promoted")
        back = time.monotonic()
        time.sleep(max(0.0, since + HANGS_S - back))
        cluster.cont(old)
        drive.await_publishing(time.monotonic())
        gap, others = drive.gaps(since, hit)
        outcome = drive.finish(f"cluster, a master hangs for 15 s, over {way}", since, back=back)
        assert gap <= HIT_S + drive.slack
        assert others <= OTHERS_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack


def test_the_master_of_a_sentinel_set_hangs(sentinels: SentinelSet, folder: Path) -> None:
    with driving(sentinels.url, folder, sdk_url=sentinels.url) as drive:
        old = sentinels.master
        since = time.monotonic()
        sentinels.stop(old)
        wait_until(lambda: sentinels.master is not old, "a replica is promoted")
        back = time.monotonic()
        time.sleep(max(0.0, since + HANGS_S - back))
        sentinels.cont(old)
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("sentinel, the master hangs for 15 s", since, back=back)
        assert gap <= HIT_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack
