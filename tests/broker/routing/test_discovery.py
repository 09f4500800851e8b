"""Who is asked for the slots, and how answers are read."""

from typing import Any

import pytest
import redis.exceptions

from progress_broker.routing.address import Endpoint
from progress_broker.routing.discovery import discover, read_layout
from progress_broker.routing.slots import Layout, SlotMap

A, B, C, SEED = (Endpoint(host, 6379) for host in ("a", "b", "c", "seed"))


def reply(*ranges: tuple[int, int, Any]) -> list[Any]:
    return [[first, last, *([host, 6379, b"id", []] for host in hosts)] for first, last, hosts in ranges]


def test_nodes_are_asked_in_turn_until_one_knows() -> None:
    slots = SlotMap()
    slots.take(Layout(((0, 5, A), (6, 9, B)), (C,)), slots.version)
    asking = discover(slots, [B], [SEED])
    refused = redis.exceptions.ConnectionError("refused")
    assert [next(asking), *(asking.send(refused) for _ in range(3))] == [B, A, C, SEED]
    with pytest.raises(StopIteration) as over:
        asking.send(reply((0, 9, [b"c"])))
    assert over.value.value == Layout(((0, 9, C),), ())


def test_the_first_error_is_raised_if_nobody_knows() -> None:
    asking = discover(SlotMap(), [], [A, B])
    refused = redis.exceptions.ConnectionError("refused")
    assert next(asking) == A
    assert asking.send(refused) == B
    with pytest.raises(redis.exceptions.ConnectionError, match="refused"):
        asking.send([])  # a node that was just made


def test_missing_hosts_mean_the_node_that_was_asked_and_addresses_are_translated() -> None:
    slots = SlotMap({B: Endpoint("outside", 7001)})
    found = read_layout(reply((0, 1, [None, b"b"]), (2, 3, [""]), (4, 5, [b"b"]), (6, 7, [b"?"])), SEED, slots)
    outside = Endpoint("outside", 7001)
    assert found == Layout(((0, 1, SEED), (2, 3, SEED), (4, 5, outside)), (outside,))


def test_who_redirected_is_asked_first_and_once() -> None:
    slots = SlotMap()
    slots.take(Layout(((0, 5, A), (6, 9, B)), ()), slots.version)
    slots.patch(6, A, B)  # which gave the slot away, and A may be the only other one that knows
    assert next(discover(slots, [A], [SEED])) == B
    assert next(discover(slots, [A], [SEED])) == A
