"""The publisher of many operations over one server or a Cluster: as a server publishes what it gets over HTTP."""

import asyncio
import random
import time
from multiprocessing.connection import Connection
from typing import Self

import uvloop

from bench.harness import settings_for
from bench.processes import serve
from bench.publisher import PIPELINE_CALLS, RUNNING, TICK_S, names, payload
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.nodes.calls import Call
from progress_broker.operations.commands import create_call, publish_call, read_answer
from progress_broker.operations.store import Store


def run(pipe: Connection, url: str, operations: int, payload_bytes: int) -> None:
    """The process: it creates the operations, then publishes on request."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        publisher = runner.run(Publisher.open(url, operations, payload_bytes))
        serve(pipe, lambda *question: runner.run(publisher.publish(*question)))


class Publisher:
    """Publishes to random operations, each a lane's."""

    def __init__(self, store: Store, operations: int, payload_bytes: int) -> None:
        self._queue = store.connections.queue
        self._operations = [(name, store.keyspace.operation(name)) for name in names(operations)]
        self._random = random.Random(1)
        self._padding = b"x" * (payload_bytes - len(payload(b"")))

    @classmethod
    async def open(cls, url: str, operations: int, payload_bytes: int) -> Self:
        store = await Store.open(settings_for(url))
        self = cls(store, operations, payload_bytes)
        # Without leases, so that no heartbeats are needed.
        news = [(name, keys, NewOperation(id=name, lease_s=None)) for name, keys in self._operations]
        await self._send([create_call(name, keys, new, store.settings) for name, keys, new in news])
        await self._send([publish_call(name, keys, [RUNNING]) for name, keys in self._operations])
        return self

    async def publish(self, seconds: float, events_a_second: float) -> tuple[int, float, float]:
        """Publish to random operations. Return the number of events, the seconds, and the CPU seconds."""
        began, cpu_s = time.perf_counter(), time.process_time()
        published, target = 0, round(seconds * events_a_second)
        while published < target and (passed := time.perf_counter() - began) < 2 * seconds:
            due = min(round(passed * events_a_second), target) - published
            batch = min(due, PIPELINE_CALLS)
            await self._send([self._event() for _ in range(batch)])
            published += batch
            if batch == due:  # on schedule: wait for the next tick; behind: continue at once
                await asyncio.sleep(max(0.0, began + passed + TICK_S - time.perf_counter()))
        return published, time.perf_counter() - began, time.process_time() - cpu_s

    def _event(self) -> Call:
        name, keys = self._random.choice(self._operations)
        return publish_call(name, keys, [NewEvent("progress", payload(self._padding))])

    async def _send(self, calls: list[Call]) -> None:
        for at in range(0, len(calls), PIPELINE_CALLS):
            for reply in await self._queue.run_each(calls[at : at + PIPELINE_CALLS]):
                if isinstance(reply, Exception):
                    raise reply
                read_answer(reply)
