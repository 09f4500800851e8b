"""Lanes, over several servers: which are on one server, and how they are named to people."""

from collections.abc import Iterable

from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace


def lanes_by_node(connections: Connections, keyspace: Keyspace) -> list[tuple[int, ...]]:
    """Return the lanes, divided by the server that has them."""
    lanes = {keyspace.lane(lane).feed: lane for lane in range(keyspace.lanes)}
    return [tuple(lanes[key] for key in node.keys) for node in connections.by_node(list(lanes))]


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
