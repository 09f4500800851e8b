"""Waits until replicas have what was written, so that it outlives its master."""

import asyncio
from collections.abc import Callable
from typing import Any

import redis.exceptions

from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store

LOOK_S = 0.2
"""How often to look. A replica says once a second how far it is."""
_PATIENCE_S = 5.0

Report = dict[str, Any]
"""A server's reply to INFO."""


async def until_replicated(store: Store, say: Callable[[str], None]) -> None:
    """Wait until a replica of each master has all that was written up to now. A master without replicas is passed over.

    `say` is told if that takes long. Raises `StorageUnavailable`, as when another server becomes the master.
    """
    for node in await store.connections.nodes():
        report, looks = await _report(node.commands), 0
        written = report.get("master_repl_offset", 0)
        while (at := _furthest(report)) is not None and at < written:
            looks += 1
            if looks == _PATIENCE_S / LOOK_S:
                say(f"waiting until a replica of {node.shown} has all: it lacks {written - at} bytes")
            await asyncio.sleep(LOOK_S)
            report = await _report(node.commands)


async def _report(commands: Any) -> Report:
    with storage_errors():
        try:
            report: Report = await commands.info("replication")
        except redis.exceptions.ResponseError:  # not permitted, or unknown
            return {}
    return report


def _furthest(report: Report) -> int | None:
    """Return up to where the furthest replica has what its master wrote; None if there is no replica."""
    replicas = [value for name, value in report.items() if name.startswith("slave") and isinstance(value, dict)]
    return max((replica.get("offset", 0) for replica in replicas), default=None)
