"""Computes the summary of operations' children. It is computed at read time, and nothing is stored for it."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from progress_broker.model.children import MAX_GENERATIONS, MAX_READ, Tree, read_child, with_rollup
from progress_broker.model.operation import ChildrenSummary, Operation, is_id
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.runtime.single_flight import SingleFlight
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import FanOut
from progress_broker.storage.scripts import CHILDREN

_DIGITS = 16


_MAX_PARENTS = 250
"""The maximum number of children whose own children are read, per generation."""
_MAX_PER_LANE = 300
_LARGE = 200
"""With more descendants than this, a summary is kept for a time: computing it takes about 10 us each."""
_KEPT_S_EACH = 0.00025
_LONGEST_KEPT_S = 1.0
_MAX_KEPT = 1_000


class _Family(NamedTuple):
    """What is shown of an operation's children."""

    summary: ChildrenSummary | None
    first: Sequence[str]
    """The ids of those to list one by one."""
    descendants: int


class Rollups:
    """The summaries of operations' children, computed when they are asked for.

    Those of large families are kept for up to a second, in proportion to their size. So a replica never spends more
    than a small part of its time on one.
    """

    def __init__(
        self, connections: Connections, keyspace: Keyspace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connections, self._keyspace, self._clock = connections, keyspace, clock
        self._kept: dict[tuple[str, int], tuple[float, _Family]] = {}
        self._flights = SingleFlight()

    async def fill(self, parents: Sequence[Operation]) -> dict[str, Sequence[str]]:
        """Set the children's summary in these operations; return, for each, the ids of the children to list."""
        created = {operation.id: round(operation.created_at.timestamp() * 1000) for operation in parents}
        families = {key[0]: kept[1] for key in created.items() if (kept := self._kept.get(key)) and self._is_new(kept)}
        wanted = {id: ms for id, ms in created.items() if id not in families}
        if wanted:
            families |= await self._read_shared(wanted)
        for operation in parents:
            operation.children = families[operation.id].summary
            operation.progress = with_rollup(operation.progress, operation.children, operation.status)
        return {id: family.first for id, family in families.items()}

    async def _read_shared(self, created: Mapping[str, int]) -> dict[str, _Family]:
        """Read families. Only a read of a large one is shared with later callers: it may not show what they changed."""
        if any(key in self._kept for key in created.items()):
            return await self._flights.share(tuple(created.items()), lambda: self._read(created))
        return await self._read(created)

    def _is_new(self, kept: tuple[float, _Family]) -> bool:
        return self._clock() < kept[0]

    async def _read(self, created: Mapping[str, int]) -> dict[str, _Family]:
        tree = await _load(self._connections, self._keyspace, created)
        families = {}
        for key in created.items():
            id, _ = key
            family = _Family(tree.summary(id), [child.id for child in tree.shown(id)], tree.size(id))
            families[id] = family
            if tree.lanes_away:
                family = families[id] = self._as_known(key, family)
            elif family.descendants > _LARGE:
                self._keep(key, family)
            await asyncio.sleep(0)
        return families

    def _as_known(self, key: tuple[str, int], partial: _Family) -> _Family:
        """Return a family of which only a part was read, with the percentage that the whole had, if it was kept."""
        _, known = self._kept.get(key, (0.0, None))
        if partial.summary is None or known is None or known.summary is None:
            return partial
        return partial._replace(summary=partial.summary.model_copy(update={"percent": known.summary.percent}))

    def _keep(self, key: tuple[str, int], family: _Family) -> None:
        self._kept.pop(key, None)
        if len(self._kept) >= _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        kept_s = min(_LONGEST_KEPT_S, family.descendants * _KEPT_S_EACH)
        self._kept[key] = self._clock() + kept_s, family


async def load(connections: Connections, keyspace: Keyspace, parents: Iterable[str]) -> Tree:
    """Return operations' children, and the children's own children where a child reports no percentage itself."""
    return await _load(connections, keyspace, await _created(connections, keyspace, list(dict.fromkeys(parents))))


async def _load(connections: Connections, keyspace: Keyspace, created: Mapping[str, int]) -> Tree:
    """Like `load`, for operations given with their time of creation in ms."""
    tree, wanted, lanes = Tree(), dict(created), FanOut(connections, keyspace)
    for _ in range(MAX_GENERATIONS):
        if not wanted:
            break
        await _load_generation(connections, keyspace, lanes, tree, wanted)
        found = (tree.children[id] for parent in wanted for id in tree.under[parent])
        silent = [child for child in found if child.is_parent and child.percent is None]
        more = [child for child in silent if child.id not in tree.under]
        tree.whole &= len(more) <= _MAX_PARENTS
        wanted = {child.id: child.created for child in more[:_MAX_PARENTS]}
    return tree


class ChildIds(NamedTuple):
    """The ids of an operation's children, and the lanes that could not be reached, which may have others."""

    ids: list[str]
    lanes_away: Sequence[int]


async def ids(connections: Connections, keyspace: Keyspace, parent: str) -> ChildIds:
    """Return the ids of all children of an operation. No child that exists now is missed in the lanes that answer."""

    async def listed(lanes: Sequence[int]) -> list[list[bytes]]:
        async with connections.commands.pipeline(transaction=False) as pipeline:
            for lane in lanes:
                pipeline.zrange(keyspace.lane(lane).index_of("parent", parent), 0, -1)
            with storage_errors():
                return [found or [] for found in readable(await pipeline.execute(raise_on_error=False))]

    lanes = FanOut(connections, keyspace)
    members = chain(*(await lanes.ask(listed)).values())
    return ChildIds(
        [id for member in members if is_id(id := member.decode("utf-8", "replace"))],
        sorted(lanes.away),
    )


async def _created(connections: Connections, keyspace: Keyspace, operations: Sequence[str]) -> dict[str, int]:
    async with connections.commands.pipeline(transaction=False) as pipeline:
        for operation in operations:
            pipeline.hget(keyspace.operation(operation).snapshot, "created")
        with storage_errors():
            found = readable(await pipeline.execute(raise_on_error=False))
    return {id: _moment(ms) for id, ms in zip(operations, found, strict=True)}


def _moment(ms: bytes | None) -> int:
    return int(ms) if ms and ms.isdigit() and len(ms) < _DIGITS else 0


async def _load_generation(
    connections: Connections, keyspace: Keyspace, lanes: FanOut, tree: Tree, parents: Mapping[str, int]
) -> None:
    """Add the children of these parents, which are given with their time of creation.

    A child that is older than its parent is ignored: its `parent` is only a label.
    """
    most = str(max(1, min(_MAX_PER_LANE, MAX_READ // keyspace.lanes)))

    async def ask(some: Sequence[int]) -> list[Any]:
        calls = []
        for lane in map(keyspace.lane, some):
            indexes = [lane.index_of("parent", parent) for parent in parents]
            calls.append(Call(CHILDREN, indexes, (lane.operations, most)))
        return await connections.scripts.run_all(calls)

    replies = (await lanes.ask(ask)).values()
    tree.lanes_away |= lanes.away.keys()
    for (parent, created), of_lanes in zip(parents.items(), zip(*replies, strict=True), strict=True):
        children = []
        for total, sampled, *states in of_lanes:
            stands_for = total / sampled if sampled else 1
            tree.whole &= stands_for == 1
            read = (read_child(id, state, stands_for) for id, state in zip(states[::2], states[1::2], strict=True))
            children += [child for child in read if child is not None and child.created >= created]
            await asyncio.sleep(0)  # many children take long to read
        tree.add(parent, children)
