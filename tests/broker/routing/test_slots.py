"""The map of slots: what a node knows, and redirections that are newer."""

from progress_broker.routing.address import Endpoint
from progress_broker.routing.slots import SLOTS, Layout, SlotMap

A, B, C = (Endpoint(host, 1) for host in "abc")
HALVES = Layout(((0, 99, A), (100, SLOTS - 1, B)), (C,))


def test_a_map_has_the_owner_of_each_slot() -> None:
    slots = SlotMap()
    assert slots.owner(5) is None
    slots.take(HALVES, slots.version)
    assert (slots.owner(0), slots.owner(99), slots.owner(100), slots.owner(SLOTS - 1)) == (A, A, B, B)
    assert slots.masters == (A, B)
    assert slots.replicas == (C,)
    slots.take(Layout(((7, 7, A),), ()), slots.version)
    assert (slots.owner(7), slots.owner(8)) == (A, None)


def test_a_redirection_wins_over_what_was_asked_before_it() -> None:
    slots = SlotMap()
    slots.take(HALVES, slots.version)
    asked_at = slots.version
    slots.patch(5, C, A)
    assert slots.owner(5) == C
    assert slots.serves(C)
    slots.take(HALVES, asked_at)
    assert slots.owner(5) == C
    slots.take(HALVES, slots.version)
    assert slots.owner(5) == A
    assert not slots.serves(C)
