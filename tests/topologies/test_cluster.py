"""The Cluster that tests run: that it starts, moves slots, and survives a master."""

from pathlib import Path

import pytest

from tests.servers import wait_until
from tests.topologies.cluster import Cluster, Migration
from tests.topologies.topology import LANES, do, feed_of


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path, replicas=1)


def test_a_cluster_starts_whole_moves_slots_and_fails_over(cluster: Cluster) -> None:
    with cluster:
        assert len(cluster.masters()) == 3
        assert len({cluster.of_lane(lane) for lane in range(LANES)}) == 3
        for lane in range(LANES):
            do(cluster.of_lane(lane), "SET", feed_of(lane), lane)

        source = cluster.of_lane(0)
        assert cluster.move_slot(0) is cluster.of_lane(0) is not source
        assert do(cluster.of_lane(0), "GET", feed_of(0)) == b"0"
        halfway = Migration(cluster, cluster.slot_of_lane(1))
        halfway.begin()
        halfway.move(halfway.keys())
        assert cluster.of_lane(1) is halfway.source
        assert do(halfway.source, "EXISTS", feed_of(2))  # only slot 1 moves
        halfway.settle()
        assert cluster.of_lane(1) is halfway.target

        old = cluster.of_lane(15)
        assert cluster.failover(15, planned=True) is cluster.of_lane(15) is not old
        wait_until(lambda: do(old, "INFO", "replication")["master_link_status"] == "up", "the old master follows")
        old = cluster.of_lane(15)
        cluster.cut_replication(old)
        wait_until(lambda: not do(old, "INFO", "replication")["connected_slaves"], "nobody follows")
        do(old, "SET", feed_of(15), "lost")
        assert cluster.failover(15, planned=False) is cluster.of_lane(15)
        assert do(cluster.of_lane(15), "GET", feed_of(15)) == b"15"
        cluster.flush()
        assert all(do(node, "DBSIZE") == 0 for node in cluster.masters())
