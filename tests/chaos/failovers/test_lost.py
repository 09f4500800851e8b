"""Rows 10 and 11: ends and creations that are lost, and nodes that come back empty."""

import time
from pathlib import Path

from tests.chaos.failovers.drive import driving, named
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES

EMPTY_S = 1.0


def test_ends_and_creations_are_lost(sentinels: SentinelSet, folder: Path) -> None:
    """They are made while replication is cut, and then the master is killed."""
    with driving(sentinels.url, folder, sdk_url=sentinels.url) as drive:
        new = [named("late", lane) for lane in range(4)]
        since = time.monotonic()
        sentinels.cut_replication(sentinels.master)
        time.sleep(0.3)
        drive.workers[0].start(new)
        drive.workers[0].tell(end=drive.names[:4])
        time.sleep(1)
        sentinels.failover(planned=False)
        drive.await_publishing(time.monotonic(), names=[*drive.names[4:], *new])
        drive.gaps(since, range(4, LANES))
        drive.finish("sentinel, ends and creations are lost", since, left=drive.names[:4])


def test_ends_and_creations_over_http_are_lost(cluster: Cluster, folder: Path) -> None:
    with driving(cluster.url, folder) as drive:
        old = cluster.of_lane(0)
        hit = [lane for lane in range(LANES) if cluster.of_lane(lane) is old]
        new = [named("late", lane) for lane in hit[:2]]
        ended = [drive.names[lane] for lane in hit[:2]]
        since = time.monotonic()
        cluster.cut_replication(old)
        time.sleep(0.3)
        drive.workers[0].start(new)
        drive.workers[0].tell(end=ended)
        time.sleep(1)
        cluster.failover(0, planned=False)
        drive.await_publishing(time.monotonic(), names=[*(set(drive.names) - set(ended)), *new])
        drive.gaps(since, set(hit[2:]))
        drive.finish("cluster, ends and creations over HTTP are lost", since, left=ended)


def test_all_nodes_come_back_empty(cluster: Cluster, folder: Path) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        since = time.monotonic()
        for node in cluster.nodes:
            cluster.kill(node)
        time.sleep(EMPTY_S)
        for node in cluster.nodes:
            node.start()
        drive.await_publishing(time.monotonic())
        drive.gaps(since, range(LANES))
        outcome = drive.finish("cluster, all nodes come back empty", since, whole=False)
        told = {(each.kind, each.operation) for each in outcome.told if each.resets}
        assert told == {(each.kind, each.operation) for each in outcome.told}
