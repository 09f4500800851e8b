"""Rows 6 and 7: slots move while they are published to."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import driving
from tests.topologies.cluster import Cluster, Migration
from tests.topologies.topology import LANES

AFTER_S = 1.0
"""How much longer than the migration a lane may pause."""
ATOMIC_S = 0.5


def listings_first(keys: Iterable[bytes]) -> Sequence[bytes]:
    return sorted(keys, key=lambda key: b":op:" in key)


def listings_last(keys: Iterable[bytes]) -> Sequence[bytes]:
    return list(reversed(listings_first(keys)))


@pytest.mark.parametrize("order", [listings_first, listings_last])
def test_the_slot_of_each_lane_moves_key_by_key(cluster: Cluster, folder: Path, order: object) -> None:
    assert callable(order)
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        since, longest = time.monotonic(), 0.0
        for lane in range(LANES):
            began = time.monotonic()
            moving = Migration(cluster, cluster.slot_of_lane(lane))
            moving.begin()
            for key in order(moving.keys()):
                moving.move([key])
                time.sleep(0.02)
            moving.move(moving.keys())
            moving.settle()
            longest = max(longest, time.monotonic() - began)
        drive.await_publishing(time.monotonic())
        drive.figures["longest migration"] = f"{longest:.2f} s"
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish(f"cluster, slots move, {order.__name__}", since)
        assert gap <= longest + AFTER_S + drive.slack
        assert not outcome.resets


@pytest.fixture
def valkey9(folder: Path) -> Iterator[Cluster]:
    with Cluster(folder / "cluster", replicas=1, server="valkey9") as cluster:
        yield cluster


def test_the_slot_of_each_lane_moves_at_once(valkey9: Cluster, folder: Path) -> None:
    with driving(valkey9.url, folder, sdk_url=valkey9.url) as drive:
        since = time.monotonic()
        for lane in range(LANES):
            valkey9.move_slot(lane, atomic=True)
        drive.await_publishing(time.monotonic())
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish("cluster of Valkey 9, MIGRATESLOTS", since)
        assert gap <= ATOMIC_S + drive.slack
        assert not outcome.resets
