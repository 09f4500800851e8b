"""Computes the summary of operations' children. It is computed at read time, and nothing is stored for it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from progress_broker.model.children import MAX_GENERATIONS, MAX_READ, Tree, read_child, with_rollup
from progress_broker.model.operation import Operation, is_id
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.run import run_all
from progress_broker.storage.scripts import CHILDREN, Call

_DIGITS = 16


async def fill(client: Any, keyspace: Keyspace, parents: Sequence[Operation]) -> Tree:
    """Set the children's summary in these operations; return their descendants."""
    created = {operation.id: round(operation.created_at.timestamp() * 1000) for operation in parents}
    tree = await _load(client, keyspace, created)
    for operation in parents:
        operation.children = tree.summary(operation.id)
        operation.progress = with_rollup(operation.progress, operation.children, operation.status)
    return tree


async def load(client: Any, keyspace: Keyspace, parents: Iterable[str]) -> Tree:
    """Return operations' children, and the children's own children where a child reports no percentage itself."""
    return await _load(client, keyspace, await _created(client, keyspace, list(dict.fromkeys(parents))))


async def _load(client: Any, keyspace: Keyspace, created: Mapping[str, int]) -> Tree:
    """Like `load`, for operations given with their time of creation in ms."""
    tree, wanted = Tree(), dict(created)
    for _ in range(MAX_GENERATIONS):
        if not wanted:
            break
        await _load_generation(client, keyspace, tree, wanted)
        found = (tree.children[id] for parent in wanted for id in tree.under[parent])
        silent = [child for child in found if child.is_parent and child.percent is None]
        wanted = {child.id: child.created for child in silent if child.id not in tree.under}
    return tree


async def ids(client: Any, keyspace: Keyspace, parent: str) -> list[str]:
    """Return the ids of all children of an operation. No child that exists now is missed."""
    async with client.pipeline(transaction=False) as pipeline:
        for lane in range(keyspace.lanes):
            pipeline.zrange(keyspace.lane(lane).index_of("parent", parent), 0, -1)
        with storage_errors():
            replies = readable(await pipeline.execute(raise_on_error=False))
    return [
        id for found in replies for id in (member.decode("utf-8", "replace") for member in found or ()) if is_id(id)
    ]


async def _created(client: Any, keyspace: Keyspace, operations: Sequence[str]) -> dict[str, int]:
    async with client.pipeline(transaction=False) as pipeline:
        for operation in operations:
            pipeline.hget(keyspace.operation(operation).snapshot, "created")
        with storage_errors():
            found = readable(await pipeline.execute(raise_on_error=False))
    return {id: _moment(ms) for id, ms in zip(operations, found, strict=True)}


def _moment(ms: bytes | None) -> int:
    return int(ms) if ms and ms.isdigit() and len(ms) < _DIGITS else 0


async def _load_generation(client: Any, keyspace: Keyspace, tree: Tree, parents: Mapping[str, int]) -> None:
    """Add the children of these parents, which are given with their time of creation.

    A child that is older than its parent is ignored: its `parent` is only a label.
    """
    most = str(max(1, MAX_READ // keyspace.lanes))
    calls = []
    for number in range(keyspace.lanes):
        lane = keyspace.lane(number)
        indexes = [lane.index_of("parent", parent) for parent in parents]
        calls.append(Call(CHILDREN, indexes, (lane.operations, most)))
    replies = await run_all(client, calls)
    for (parent, created), of_lanes in zip(parents.items(), zip(*replies, strict=True), strict=True):
        children = []
        for total, sampled, *states in of_lanes:
            stands_for = total / sampled if sampled else 1
            tree.whole &= stands_for == 1
            read = (read_child(id, state, stands_for) for id, state in zip(states[::2], states[1::2], strict=True))
            children += [child for child in read if child is not None and child.created >= created]
        tree.add(parent, children)
