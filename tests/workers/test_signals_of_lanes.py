"""Signals of operations in several lanes of a Cluster, as the thread that delivers them reads them."""

import threading
from collections.abc import Iterator

import pytest

from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_workers.transport.over_redis.cluster.lane_signals import SignalWaits
from progress_workers.transport.over_redis.connection import Connection
from tests.servers import wait_until
from tests.workers.harness import KEYS, Broker

NONE = (0, 0)


@pytest.fixture
def broker(cluster_url: str) -> Iterator[Broker]:
    broker = Broker(cluster_url)
    yield broker
    broker.redis.close()


@pytest.fixture
def waits(broker: Broker) -> SignalWaits:
    return SignalWaits(Connection(broker.settings))


@pytest.fixture
def ids() -> tuple[str, str]:
    """Two operations in different lanes."""
    first = "operation-0"
    other = next(id for id in (f"operation-{n}" for n in range(100)) if KEYS.lane_of(id) != KEYS.lane_of(first))
    return first, other


def send(broker: Broker, operation: str, type: str) -> None:
    broker.redis.xadd(KEYS.operation(operation).signals, {"t": type, "d": "null"})


def heard(waits: SignalWaits, positions: dict[str, SignalPosition]) -> list[tuple[str, str]]:
    """Return the next signals, and take their positions."""
    while True:
        found = waits.read(positions)
        if found:
            break
    told = []
    for signal in found:
        assert isinstance(signal, ArrivedSignal)
        positions[signal.operation] = signal.position
        told.append((signal.operation, signal.type))
    return told


def test_each_lane_is_read_and_each_signal_told_once(broker: Broker, waits: SignalWaits, ids: tuple[str, str]) -> None:
    first, other = ids
    positions = {first: NONE}
    send(broker, first, "alone")
    assert heard(waits, positions) == [(first, "alone")]
    positions[other] = NONE  # from now on a thread reads each lane
    send(broker, other, "begins")
    assert heard(waits, positions) == [(other, "begins")]
    for number in range(5):
        for id in ids:
            send(broker, id, f"go-{number}")
            assert heard(waits, positions) == [(id, f"go-{number}")]


def test_another_reporter_of_an_operation_hears_all_that_there_is(
    broker: Broker, waits: SignalWaits, ids: tuple[str, str]
) -> None:
    first, other = ids
    positions = dict.fromkeys(ids, NONE)
    for type in ("a", "b"):
        send(broker, first, type)
        assert heard(waits, positions) == [(first, type)]
    positions[first] = NONE
    told = heard(waits, positions)
    assert told == [(first, "a"), (first, "b")]
    send(broker, other, "c")
    assert heard(waits, positions) == [(other, "c")]
    # It comes while nothing was read after the position that is asked for again.
    positions[other] = NONE
    assert heard(waits, positions) == [(other, "c")]


def test_an_operation_that_comes_back_is_read_from_its_own_position(
    broker: Broker, waits: SignalWaits, ids: tuple[str, str]
) -> None:
    first, other = ids
    send(broker, first, "a")
    assert heard(waits, dict.fromkeys(ids, NONE)) == [(first, "a")]
    waits.end_wait()
    assert waits.read({other: NONE}) == []
    assert heard(waits, dict.fromkeys(ids, NONE)) == [(first, "a")]


def test_what_comes_while_nobody_listens_is_read_and_told_to_nobody(
    broker: Broker, waits: SignalWaits, ids: tuple[str, str]
) -> None:
    for id in ids:
        send(broker, id, "a")
    told: set[str] = set()
    while len(told) < 2:
        told |= {id for id, _ in heard(waits, dict.fromkeys(ids, NONE))}
    waits.rest()

    def sleep() -> bool:
        for id in ids:
            send(broker, id, "for nobody")
        return all(lane._streams._client is None for lane in waits._lanes.values())

    wait_until(sleep, "the lanes' threads sleep, without a connection")
    waits.rest()
    assert waits._arrived.empty()
    for id in ids:
        broker.redis.delete(KEYS.operation(id).signals)
        send(broker, id, "b")
        assert heard(waits, {id: NONE}) == [(id, "b")]


def test_a_wait_is_ended_for_an_operation_that_was_added(
    broker: Broker, waits: SignalWaits, ids: tuple[str, str]
) -> None:
    positions = dict.fromkeys(ids, NONE)
    waiting = threading.Thread(target=lambda: waits.read(positions))
    waits.end_wait()
    waits.read(positions)
    waiting.start()
    wait_until(waits.end_wait, "it waits")
    waiting.join(60)
    assert not waiting.is_alive()
