"""Lanes, over several servers: which are on one server, questions to all of them, and how they are named to people."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeVar

from progress_broker.errors import BrokerError, StorageFull, StorageUnavailable
from progress_broker.runtime.tasks import end
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace

PATIENCE_S = 1.0
"""How much longer than for the first answer the other servers are waited for."""

T = TypeVar("T")


@lru_cache(maxsize=8)  # each request to many lanes needs it
def _lane_of_feed(keyspace: Keyspace) -> Mapping[str, int]:
    return {keyspace.lane(lane).feed: lane for lane in range(keyspace.lanes)}


def lanes_by_node(connections: Connections, keyspace: Keyspace) -> list[tuple[int, ...]]:
    """Return the lanes, divided by the server that has them."""
    lanes = _lane_of_feed(keyspace)
    return [tuple([lanes[key] for key in node.keys]) for node in connections.by_node([*lanes])]


def is_divided(connections: Connections, keyspace: Keyspace) -> bool:
    """Return whether several servers have the lanes, so that some of them may be away while others answer."""
    return len(lanes_by_node(connections, keyspace)) > 1


def by_node(connections: Connections, keyspace: Keyspace, keys: Iterable[str]) -> dict[tuple[int, ...], list[str]]:
    """Return keys, divided by the server that has them, which is named by its lanes: others may take its place.

    Servers without lanes have the same name.
    """
    lanes = _lane_of_feed(keyspace)
    divided: dict[tuple[int, ...], list[str]] = {}
    for node in connections.by_node([*lanes, *keys]):
        name = tuple(lanes[key] for key in node.keys if key in lanes)
        divided.setdefault(name, []).extend(key for key in node.keys if key not in lanes)
    return divided


def shown(lanes: Iterable[int]) -> str:
    """Return numbers of lanes as people read them: `lane 3`, `lanes 0-7, 12`."""
    runs: list[list[int]] = []
    for lane in sorted(lanes):
        if runs and lane == runs[-1][-1] + 1:
            runs[-1].append(lane)
        else:
            runs.append([lane])
    ranges = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"lane {ranges}" if ranges.isdigit() else f"lanes {ranges}"


class FanOut:
    """Questions of one caller to many lanes. What a server that is away has is left out, and told.

    If one server has all lanes, its errors are raised as they are.
    """

    def __init__(self, connections: Connections, keyspace: Keyspace) -> None:
        self._nodes = lanes_by_node(connections, keyspace)
        self._lanes = range(keyspace.lanes)
        self.away: dict[int, BrokerError] = {}
        """The lanes that were left out, and why. They are not asked again."""

    async def ask(
        self, ask: Callable[[Sequence[int]], Awaitable[Sequence[T]]], lanes: Iterable[int] | None = None
    ) -> dict[int, T]:
        """Return the replies by lane. `ask` is called for the lanes of each server; it returns a reply for each lane.

        Raises `StorageUnavailable` or `StorageFull` if all lanes are away.
        """
        wanted = self._lanes if lanes is None else sorted(set(lanes))
        if len(self._nodes) == 1:
            return dict(zip(wanted, await ask(wanted), strict=True)) if wanted else {}
        due = set(wanted) - self.away.keys()
        groups = [some for node in self._nodes if (some := [lane for lane in node if lane in due])]
        replies: dict[int, T] = {}
        tasks = {asyncio.ensure_future(ask(group)): group for group in groups}
        try:
            await _answered(tasks)
            for task, group in tasks.items():
                try:
                    replies |= zip(group, _result(task), strict=True)
                except (StorageUnavailable, StorageFull) as error:
                    self.away |= dict.fromkeys(group, error)
        finally:
            await end(*tasks)
        if len(self.away) == len(self._lanes):
            raise next(iter(self.away.values()))
        return replies

    def leave_out(self, lane: int, error: BrokerError) -> None:
        """Leave out the lanes of a lane's server, which failed with this error. Raise it if no other server is left."""
        self.away |= dict.fromkeys(next(node for node in self._nodes if lane in node), error)
        if len(self.away) == len(self._lanes):
            raise error


async def _answered(tasks: Iterable["asyncio.Future[Sequence[T]]"]) -> None:
    """Wait for the first good answer, and then for the others, but not for long."""
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if any(task.exception() is None for task in done):
            break
    if pending:
        await asyncio.wait(pending, timeout=PATIENCE_S)


def _result(task: "asyncio.Future[Sequence[T]]") -> Sequence[T]:
    if not task.done():
        raise StorageUnavailable(f"Redis does not answer within {PATIENCE_S:g} s of others")
    return task.result()
