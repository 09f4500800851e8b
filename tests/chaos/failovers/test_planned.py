"""Rows 3 and 4: failovers that an operator asks for."""

import time
from pathlib import Path

from tests.chaos.failovers.drive import driving
from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES

GAP_S, OLD_S, TOLD_S = 0.5, 2.0, 2.0


def test_masters_of_a_cluster_hand_over(cluster: Cluster, folder: Path) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        since = time.monotonic()
        for lane in (0, LANES - 1):
            cluster.failover(lane, planned=True)
            drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("cluster, planned failovers", since)
        assert gap <= GAP_S + drive.slack
        assert not outcome.resets


def test_sentinels_hand_over(sentinels: SentinelSet, folder: Path) -> None:
    """The old master accepts writes until sentinels make it a replica, some ten seconds later."""
    with driving(sentinels.url, folder, sdk_url=sentinels.url) as drive:
        since = time.monotonic()
        sentinels.failover(planned=True)
        promoted = time.monotonic()
        drive.await_publishing(promoted)
        sentinels.await_replicas()
        drive.figures["the old master follows after"] = f"{time.monotonic() - promoted:.2f} s"
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("sentinel, planned failover", since)
        assert gap <= OLD_S + drive.slack
        # What the old master was sent after the promotion is lost, and was sent again.
        assert outcome.forgotten_s <= OLD_S + drive.slack
