"""Rows 8 and 9: one stable address leads to another server, which has not all that the old one had."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import KEYS, driving
from tests.chaos.failovers.pair import Pair
from tests.e2e.harness import ForeignWorker
from tests.servers import RealRedis
from tests.topologies.topology import LANES, client_of, do

GAP_S, TOLD_S = 2.0, 2.0


@pytest.fixture
def pair(folder: Path) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(folder, stack)


@pytest.mark.parametrize("lost_s", [0.0, 1.5])
def test_the_address_leads_to_the_replica(pair: Pair, folder: Path, lost_s: float) -> None:
    with driving(pair.proxy.url, folder, sdk_url=pair.proxy.url) as drive:
        since = time.monotonic()
        if lost_s:
            pair.cut_replication()
            time.sleep(lost_s)
        pair.demote()
        pair.flip()
        back = time.monotonic()
        drive.await_publishing(back)
        gap, _ = drive.gaps(since, range(LANES))
        outcome = drive.finish(
            f"single, the address leads to a replica without the last {lost_s:g} s", since, back=back
        )
        assert gap <= GAP_S + drive.slack
        assert outcome.told_after_s <= TOLD_S + drive.slack
        assert bool(outcome.resets) >= bool(lost_s)


@pytest.mark.parametrize("both_write", [False, True], ids=["one master at a time", "both accept writes"])
def test_as_many_are_new_as_were_lost(pair: Pair, folder: Path, both_write: bool) -> None:
    """So counts tell nothing: events of another publisher have the numbers of those that were lost. If both masters
    accept writes, they are also older than the newest of these."""
    with driving(pair.proxy.url, folder, sdk_url=pair.proxy.url) as drive:
        since = time.monotonic()
        pair.cut_replication()
        time.sleep(1)
        if not both_write:
            do(pair.old, "CLIENT", "PAUSE", 60_000, "WRITE")
        had = {name: events_of(pair.old, name) for name in drive.names}
        do(pair.new, "REPLICAOF", "NO", "ONE")
        other = ForeignWorker(pair.new.url)
        for name, events in had.items():
            for _ in range(events - events_of(pair.new, name)):
                other.publish(name, "note", b"{}")
        if both_write:
            time.sleep(0.5)
        else:
            do(pair.old, "CLIENT", "UNPAUSE")
        pair.demote()
        pair.flip()
        back = time.monotonic()
        drive.await_publishing(back)
        drive.gaps(since, range(LANES))
        outcome = drive.finish("single, k events lost and k new", since, back=back)
        assert outcome.told_after_s <= TOLD_S + drive.slack
        told = {each.operation: each for each in outcome.told if each.resets}
        assert told.keys() == set(drive.names)


def events_of(server: RealRedis, name: str) -> int:
    with client_of(server) as client:
        return int(client.hget(KEYS.operation(name).snapshot, "n"))  # type: ignore[arg-type]
