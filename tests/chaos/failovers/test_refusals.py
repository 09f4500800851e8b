"""Rows 12, 13 and 15: servers that are up and refuse: writes, scripts, passwords."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import driving
from tests.servers import RealRedis, free_port
from tests.topologies.cluster import Cluster
from tests.topologies.topology import LANES, do

REFUSES_S = 10.0
AFTER_S, GAP_S = 2.0, 0.5


@pytest.fixture
def server(folder: Path) -> Iterator[RealRedis]:
    with RealRedis(folder / "redis", port=free_port()) as server:
        yield server


def test_a_master_refuses_writes_for_want_of_replicas(server: RealRedis, folder: Path) -> None:
    with driving(server.url, folder, sdk_url=server.url) as drive:
        since = time.monotonic()
        do(server, "CONFIG", "SET", "min-replicas-to-write", 1)
        time.sleep(REFUSES_S)
        do(server, "CONFIG", "SET", "min-replicas-to-write", 0)
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("single, NOREPLICAS for 10 s", since)
        assert gap <= REFUSES_S + AFTER_S + drive.slack
        assert not outcome.resets


def test_a_node_of_a_cluster_refuses_writes_for_want_of_replicas(cluster: Cluster, folder: Path) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        node = cluster.of_lane(0)
        hit = [lane for lane in range(LANES) if cluster.of_lane(lane) is node]
        since = time.monotonic()
        do(node, "CONFIG", "SET", "min-replicas-to-write", 2)
        time.sleep(REFUSES_S)
        do(node, "CONFIG", "SET", "min-replicas-to-write", 0)
        drive.await_publishing(time.monotonic())
        gap, others = drive.gaps(since, hit)
        outcome = drive.finish("cluster, NOREPLICAS of one node for 10 s", since)
        assert gap <= REFUSES_S + AFTER_S + drive.slack
        assert others <= GAP_S + drive.slack
        assert not outcome.resets


def test_scripts_are_forgotten(cluster: Cluster, folder: Path) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        since = time.monotonic()
        for node in cluster.masters():
            do(node, "SCRIPT", "FLUSH")
            time.sleep(1)
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("cluster, SCRIPT FLUSH of each node", since)
        assert gap <= GAP_S + drive.slack
        assert not outcome.resets
        assert "error" not in drive.outputs().lower().replace("uvicorn.error", "")


def test_scripts_of_a_single_server_are_forgotten(server: RealRedis, folder: Path) -> None:
    with driving(server.url, folder, sdk_url=server.url) as drive:
        since = time.monotonic()
        do(server, "SCRIPT", "FLUSH")
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("single, SCRIPT FLUSH", since)
        assert gap <= GAP_S + drive.slack
        assert not outcome.resets


def test_the_password_changes_for_a_while(server: RealRedis, folder: Path) -> None:
    """Connections are cut, and new ones are refused. An operator who sets the old one again has them back."""
    do(server, "ACL", "SETUSER", "pb", "on", ">first", "~*", "&*", "+@all")
    url = server.url.replace("redis://", "redis://pb:first@")
    with driving(url, folder, sdk_url=url) as drive:
        since = time.monotonic()
        do(server, "ACL", "SETUSER", "pb", ">second", "<first")
        do(server, "CLIENT", "KILL", "USER", "pb")
        time.sleep(4)
        assert "first" not in drive.outputs().replace("first try", "")
        do(server, "ACL", "SETUSER", "pb", ">first")  # it has two
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("single, the password is another one for 4 s", since)
        assert gap <= 4 + AFTER_S + drive.slack
        assert not outcome.resets
