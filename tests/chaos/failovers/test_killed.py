"""Rows 1 and 2: a master is killed, with replication cut for a while before, so that there is something to lose."""

import time
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import driving
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES

BACK_S, OTHERS_S, TOLD_S = 8.0, 0.5, 2.0


@pytest.mark.parametrize(("way", "cut_s"), [("redis", 0.0), ("redis", 0.6), ("redis", 3.0), ("http", 0.6)])
def test_a_master_of_a_cluster_is_killed(cluster: Cluster, folder: Path, way: str, cut_s: float) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url if way == "redis" else None) as drive:
        old = cluster.of_lane(0)
        hit = [lane for lane in range(LANES) if cluster.of_lane(lane) is old]
        if cut_s:
            cluster.cut_replication(old)
            time.sleep(cut_s)
        since = time.monotonic()
        cluster.failover(0, planned=False)
        back = time.monotonic()
        drive.figures["promoted"] = f"{back - since:.2f} s"
        drive.await_publishing(back)
        gap, others = drive.gaps(since, hit)
        outcome = drive.finish(f"cluster, killed, replication cut {cut_s:g} s, over {way}", since, back=back)
        assert gap <= BACK_S + drive.slack
        assert others <= OTHERS_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack
        assert bool(outcome.resets) == bool(cut_s)


@pytest.mark.parametrize("cut_s", [0.0, 0.6, 3.0])
def test_the_master_of_a_sentinel_set_is_killed(sentinels: SentinelSet, folder: Path, cut_s: float) -> None:
    with driving(sentinels.url, folder, sdk_url=sentinels.url) as drive:
        old = sentinels.master
        if cut_s:
            sentinels.cut_replication(old)
            time.sleep(cut_s)
        since = time.monotonic()
        sentinels.failover(planned=False)
        back = time.monotonic()
        drive.figures["promoted"] = f"{back - since:.2f} s"
        drive.await_publishing(back)
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish(f"sentinel, killed, replication cut {cut_s:g} s", since, back=back)
        assert gap <= BACK_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack
        assert bool(outcome.resets) == bool(cut_s)
