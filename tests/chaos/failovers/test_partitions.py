"""Rows 18 and 19: there is no quorum of sentinels, and no majority of masters."""

import time
from pathlib import Path

import redis.exceptions

from tests.chaos.failovers.drive import driving
from tests.servers import wait_until
from tests.topologies.cluster import NODE_TIMEOUT_MS, Cluster
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import LANES, do, feed_of

GAP_S, AFTER_S = 0.5, 8.0


def test_the_quorum_of_sentinels_is_gone(sentinels: SentinelSet, folder: Path) -> None:
    with driving(sentinels.url, folder, sdk_url=sentinels.url) as drive:
        since = time.monotonic()
        for sentinel in sentinels.sentinels[:2]:
            sentinels.stop(sentinel)
        time.sleep(4)
        sentinels.kill(sentinels.sentinels[2])
        time.sleep(4)
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("sentinel, the quorum is gone", since)
        assert gap <= GAP_S + drive.slack
        assert not outcome.resets


def test_the_majority_of_masters_is_gone(cluster: Cluster, folder: Path) -> None:
    """The one that is left refuses writes, so that nobody is told that is stored what the others would overrule."""
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        left = cluster.of_lane(0)
        lane_left = feed_of(0)
        others = [node for node in cluster.nodes if node is not left]
        since = time.monotonic()
        for node in others:
            cluster.stop(node)

        def refuses() -> bool:
            try:
                do(left, "XLEN", lane_left)
            except redis.exceptions.ClusterDownError:
                return True
            return False

        wait_until(refuses, "it refuses")
        refused_s = time.monotonic() - since
        drive.figures["refused after"] = f"{refused_s:.2f} s"
        for node in others:
            cluster.cont(node)
        wait_until(lambda: not refuses(), "it serves again")
        back = time.monotonic()
        drive.await_publishing(back)
        drive.gaps(since, range(LANES))
        late = max(drive.first_after(name, back) for name in drive.in_lanes(range(LANES))) - back
        drive.figures["all publish after"] = f"{late:.2f} s"
        drive.finish("cluster, the majority hangs", since)
        assert refused_s <= 2 * NODE_TIMEOUT_MS / 1000 + drive.slack
        assert late <= AFTER_S + drive.slack
