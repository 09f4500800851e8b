"""What the servers that accept writes report about themselves: memory, replicas, configuration.

It is read on request, and after connections were made: another server may be the master, or there may be one more.
"""

import asyncio
from contextlib import suppress
from math import isnan, nan
from typing import Any, NamedTuple

import redis.exceptions

from progress_broker.errors import SetupError, StorageFull, StorageUnavailable
from progress_broker.nodes.node import Node
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.schema import check_server

PATIENCE_S = 1.0
EVERY_S = 1.0
"""The least time from one read after connections were made to the next: they are often made together."""

Report = dict[str, Any]
"""A server's reply to INFO."""


class MemoryUsage(NamedTuple):
    """Memory of a server, in bytes. What is unknown is NaN; a maximum of 0 is no limit."""

    used: float
    maximum: float


class Masters:
    """The servers that accept writes, as they reported last. What none of them reports is unknown."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.memory_used = self.memory_max = nan
        """Memory of the fullest one, in bytes. A maximum of 0 is no limit; NaN is unknown."""
        self.unsuitable: int | None = None
        """How many of them may lose data, or are too old."""
        self.without_replica: int | None = None
        """How many of them have no replica that follows. Unknown for a single server, which is used as it is."""
        self.failovers: int | None = None
        """How often a replica was promoted."""
        self._histories: set[str] = set()
        """The ids of the replication histories of the masters."""

    async def run(self) -> None:
        """Read again whenever connections were made, until cancelled."""
        made = self._connections.trips.made
        while True:
            await made.wait()
            made.clear()
            await self.refresh()
            await asyncio.sleep(EVERY_S)

    async def refresh(self) -> None:
        """Read what they report, for at most a second."""
        nodes: list[Node] = []
        with suppress(StorageUnavailable):  # none answers
            nodes = await self._connections.nodes()
        read = zip(nodes, await asyncio.gather(*map(_read, nodes)), strict=True)
        reports = [(node, report) for node, report in read if report]
        known = [usage for _, report in reports if not isnan((usage := memory_usage(report)).used)]
        self.memory_used, self.memory_max = max(known, key=_fullness, default=MemoryUsage(nan, nan))
        self.unsuitable = sum(not _suits(node, report) for node, report in reports) if reports else None
        replicated = [report for _, report in reports if "master_replid" in report]
        if replicated:
            self._count_failovers(replicated)
        expected = replicated if self._connections.replicated else []
        self.without_replica = sum(not has_replica(report) for report in expected) if expected else None

    def _count_failovers(self, reports: list[Report]) -> None:
        """Count the histories that go on after one that was known, and that no master has any more.

        A master that restarts, or was without replicas for an hour, begins a new history, which follows no other.
        """
        self.failovers = self.failovers or 0
        now = {report["master_replid"]: report.get("master_replid2") for report in reports}
        for history, before in now.items():
            if history not in self._histories and before in self._histories.difference(now):
                self.failovers += 1
                self._histories.remove(before)
        self._histories.update(now)


async def _read(node: Node) -> Report:
    """Return what a server reports; nothing if it does not, as some managed services, or is no master any more."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            with storage_errors():
                report: Report = await node.commands.info()
    except (StorageUnavailable, StorageFull, TimeoutError, redis.exceptions.ResponseError) as error:
        warn_once("can't read what Redis reports about itself (INFO)", str(error) or type(error).__name__)
        return {}
    return report if report.get("role", "master") == "master" else {}


def _suits(node: Node, report: Report) -> bool:
    try:
        check_server(report)
    except SetupError as error:
        warn_once(f"the master {node.shown} is used, but does not fit", error.detail)
        return False
    return True


def has_replica(report: Report) -> bool:
    """Return whether a master reports a replica that follows it."""
    listed = [value for name, value in report.items() if name.startswith("slave") and isinstance(value, dict)]
    if not listed:
        return bool(report.get("connected_slaves"))
    return any(replica.get("state") == "online" for replica in listed)


def memory_usage(report: Report) -> MemoryUsage:
    """Return how full a server is."""
    # Buffers of replicas and of the append-only file do not count against the maximum.
    used = _number(report, "used_memory") - _number(report, "mem_not_counted_for_evict", 0)
    return MemoryUsage(used, _number(report, "maxmemory"))


def _fullness(usage: MemoryUsage) -> tuple[float, float]:
    return usage.used / usage.maximum if usage.maximum > 0 else 0.0, usage.used


def _number(report: Report, name: str, otherwise: float = nan) -> float:
    value = report.get(name)
    return float(value) if isinstance(value, int | float) else otherwise
