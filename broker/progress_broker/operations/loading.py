"""Loads the snapshots of many operations, lane by lane."""

from collections import ChainMap
from collections.abc import Iterable, Sequence
from typing import Any

from progress_broker.errors import Gone, NotFound
from progress_broker.model.operation import Operation, is_id
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.rollup import Rollups
from progress_broker.operations.snapshot import FIELDS, has_children, read_snapshot
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import FanOut

Loaded = tuple[Operation, bool]
"""An operation, and whether it has children."""


async def load(
    connections: Connections, keyspace: Keyspace, rollups: Rollups, operations: Sequence[str]
) -> list[Operation]:
    """Return those of these operations that exist, and whose lanes can be reached."""
    loaded = await load_each(connections, keyspace, FanOut(connections, keyspace), operations)
    return await rolled_up(rollups, [it for it in loaded if it is not None])


async def load_each(
    connections: Connections, keyspace: Keyspace, lanes: FanOut, operations: Sequence[str]
) -> list[Loaded | None]:
    """Return operations; None for each that does not exist, or whose lane can't be reached."""
    in_lane = by_lane(keyspace, (operation for operation in operations if is_id(operation)))

    async def load(some: Sequence[int]) -> list[dict[str, Any]]:
        async with connections.commands.pipeline(transaction=False) as pipeline:
            for lane in some:
                for operation in in_lane[lane]:
                    pipeline.hmget(keyspace.operation_in(lane, operation).snapshot, FIELDS)
            with storage_errors():
                replies = iter(readable(await pipeline.execute(raise_on_error=False)))
        return [dict(zip(in_lane[lane], replies, strict=False)) for lane in some]

    found = ChainMap(*(await lanes.ask(load, in_lane)).values())
    return [_snapshot(operation, found.get(operation)) for operation in operations]


async def rolled_up(rollups: Rollups, found: Sequence[Loaded]) -> list[Operation]:
    """Return loaded operations, with the summaries of their children."""
    await rollups.fill([operation for operation, has_children in found if has_children])
    return [operation for operation, _ in found]


def by_lane(keyspace: Keyspace, operations: Iterable[str]) -> dict[int, list[str]]:
    """Return operations by their lane."""
    found: dict[int, list[str]] = {}
    for operation in operations:
        found.setdefault(keyspace.lane_of(operation), []).append(operation)
    return found


def _snapshot(operation: str, values: list[bytes | None] | None) -> Loaded | None:
    if values is None:
        return None
    try:
        return read_snapshot(operation, values), has_children(values)
    except (NotFound, Gone):
        return None  # its index entry will be removed soon
