"""Lanes over several servers: how they are divided and named, and questions to all of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from progress_broker.errors import StorageUnavailable
from progress_broker.storage import lanes
from progress_broker.storage.connections import KeysOfNode
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import FanOut, by_node, lanes_by_node, shown

KEYSPACE = Keyspace("pb", 6)


class Several:
    """Connections to three servers: two of them have lanes; each has the keys that name it."""

    def by_node(self, keys: Sequence[str]) -> list[KeysOfNode]:
        feeds = [KEYSPACE.lane(lane).feed for lane in range(KEYSPACE.lanes)]
        groups: dict[int, list[str]] = {}
        for key in keys:
            node = feeds.index(key) % 2 if key in feeds else int(key[0])
            groups.setdefault(node, []).append(key)
        return [KeysOfNode(None, some) for some in groups.values()]


SEVERAL: Any = Several()


def test_lanes_are_named_as_people_read_them() -> None:
    assert shown([3]) == "lane 3"
    assert shown({9, 1, 2, 0, 11, 10}) == "lanes 0-2, 9-11"
    assert shown([0, 2]) == "lanes 0, 2"
    assert shown([15, 16]) == "lanes 15-16"


def test_keys_are_divided_by_servers_and_none_is_left_out() -> None:
    assert lanes_by_node(SEVERAL, KEYSPACE) == [(0, 2, 4), (1, 3, 5)]
    divided = by_node(SEVERAL, KEYSPACE, ["0a", "1a", "2a", "3a", "0b", "2b"])
    assert divided == {(0, 2, 4): ["0a", "0b"], (1, 3, 5): ["1a"], (): ["2a", "2b", "3a"]}


async def test_who_is_away_is_left_out_and_not_asked_again() -> None:
    asked: list[Sequence[int]] = []

    async def ask(some: Sequence[int]) -> list[int]:
        asked.append(some)
        if 1 in some:
            raise StorageUnavailable("away")
        return [10 * lane for lane in some]

    fan_out = FanOut(SEVERAL, KEYSPACE)
    assert await fan_out.ask(ask) == {0: 0, 2: 20, 4: 40}
    assert fan_out.away.keys() == {1, 3, 5}
    assert await fan_out.ask(ask, [4, 5, 5]) == {4: 40}
    assert asked == [[0, 2, 4], [1, 3, 5], [4]]
    with pytest.raises(StorageUnavailable, match="gone"):
        fan_out.leave_out(2, StorageUnavailable("gone"))


async def test_who_is_late_is_waited_for_only_as_long_as_that_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "PATIENCE_S", 0.01)
    cancelled = asyncio.Event()

    async def ask(some: Sequence[int]) -> list[str]:
        if 1 in some:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
        return [f"lane {lane}" for lane in some]

    fan_out = FanOut(SEVERAL, KEYSPACE)
    assert set(await fan_out.ask(ask)) == {0, 2, 4}
    assert cancelled.is_set()
    assert "within 0.01 s" in str(fan_out.away[1])


async def test_a_fault_of_ours_is_no_lane_that_is_away() -> None:
    async def ask(some: Sequence[int]) -> list[int]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await FanOut(SEVERAL, KEYSPACE).ask(ask)
