"""The Sentinel set that tests run: that it starts, and fails over with and without its master's help."""

from pathlib import Path

from tests.servers import wait_until
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import do


def test_a_sentinel_set_starts_whole_and_fails_over(tmp_path: Path) -> None:
    with SentinelSet(tmp_path) as topology:
        first = topology.master
        do(first, "SET", "a", 1)
        topology.await_replicas()
        second = topology.failover(planned=True)
        assert second is topology.master is not first
        assert do(second, "GET", "a") == b"1"

        topology.await_replicas(1)
        topology.cut_replication(second)
        wait_until(lambda: not do(second, "INFO", "replication")["connected_slaves"], "nobody follows")
        do(second, "SET", "a", 2)
        third = topology.failover(planned=False)
        assert third is topology.master is not second
        assert do(third, "GET", "a") == b"1"
        topology.flush()
        assert do(third, "DBSIZE") == 0
