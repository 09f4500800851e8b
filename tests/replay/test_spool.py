"""What waits to be replayed comes back as it was, in one order, and takes little memory."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.errors import InvalidInput
from progress_broker.model.position import order
from progress_broker.operations.store import Store
from progress_broker.replay.recording import Choice, Recorded, load
from progress_broker.replay.spool import Spool
from progress_broker.transfer.format import ExportedEvent
from tests.transfer.exports import export, source_of
from tests.transfer.fleet import ENDED, make_fleet

TEXT = st.binary(max_size=40)
RUNS = st.lists(st.lists(st.tuples(st.integers(0, 50), TEXT, TEXT, TEXT, TEXT), max_size=20), min_size=1, max_size=5)


@given(RUNS, st.sampled_from([1, 10_000]))
def test_events_of_several_operations_come_in_the_order_of_time(runs: list[list[Any]], most: int) -> None:
    given_events: list[Recorded] = []
    with Spool(most) as spool:
        for number, run in enumerate(runs):
            ms = 0
            for n, (pause_ms, *texts) in enumerate(run, 1):
                ms += pause_ms
                event = ExportedEvent(n, b"%d-%d" % (ms, 10 * n + number), *texts)
                spool.append(f"op-{number}", [event])
                given_events.append(Recorded(f"op-{number}", event))
        wanted = sorted(given_events, key=lambda recorded: order(recorded.event.position))
        assert len(spool) == len(wanted)
        assert list(spool) == wanted
        first, second = iter(spool), iter(spool)  # for a loop
        assert [*itertools.islice(first, 3), *second, *first] == [*wanted[:3], *wanted, *wanted[3:]]


def test_events_of_one_operation_stay_in_their_own_order() -> None:
    events = [ExportedEvent(n, b"%d-0" % (10 - n), b"log", b"{}") for n in range(1, 5)]
    with Spool() as spool:
        spool.append("a", events[:2])
        spool.append("a", events[2:])
        assert [recorded.event for recorded in spool] == events


async def test_a_recording_has_what_is_chosen(store: Store) -> None:
    await make_fleet(store)
    text = await export(store)
    with Spool(1) as spool:
        recording = await load(source_of(text), Choice(), spool, lambda operation: operation.kind == "import")
        assert set(recording.operations) == {"short", "failed", "long"}
        assert {recorded.operation for recorded in recording.events} == set(recording.operations)
        positions = [order(recorded.event.position) for recorded in recording.events]
        assert positions == sorted(positions)
    with Spool() as spool:
        everything = await load(source_of(text), Choice(types=frozenset({"no.such"})), spool)
        assert set(everything.operations) > set(ENDED)
        assert {recorded.event.type for recorded in everything.events} == {b"end"}
    with Spool() as spool, pytest.raises(InvalidInput, match="no operation matches"):
        await load(source_of(text), Choice(), spool, lambda operation: False)
