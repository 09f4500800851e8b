"""The publisher of many operations: it creates them, and publishes through the real script at a steady rate."""

import random
import time
from multiprocessing.connection import Connection
from typing import Any

from bench.harness import keyspace_of, settings_for
from bench.processes import serve
from progress_broker.errors import BrokerError
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.nodes.calls import Call
from progress_broker.nodes.node import connect
from progress_broker.operations.commands import create_call, publish_call, read_answer
from progress_workers.transport.over_redis.pipeline import run_pipeline

TICK_S = 0.001  # events of many independent workers arrive evenly; larger ticks would save readers wake-ups
PIPELINE_CALLS = 100
RUNNING = NewEvent("status", b'{"status":"running"}', "running")


def names(operations: int) -> list[str]:
    return [f"operation-{number}" for number in range(operations)]


def run(pipe: Connection, url: str, operations: int, payload_bytes: int) -> None:
    """The process: it creates the operations, then publishes on request."""
    publisher = Publisher(url, operations, payload_bytes)
    publisher.create()
    serve(pipe, publisher.publish)


class Publisher:
    def __init__(self, url: str, operations: int, payload_bytes: int) -> None:
        self._settings = settings_for(url)
        self._client: Any = connect(self._settings)
        keyspace = keyspace_of(self._client, self._settings)
        self._operations = [(name, keyspace.operation(name)) for name in names(operations)]
        self._random = random.Random(1)
        self._padding = b"x" * (payload_bytes - len(payload(b"")))

    def create(self) -> None:
        # Without leases, so that no heartbeats are needed.
        calls = [
            create_call(name, keys, NewOperation(id=name, lease_s=None), self._settings)
            for name, keys in self._operations
        ]
        self._send(calls)
        self._send([publish_call(name, keys, [RUNNING]) for name, keys in self._operations])

    def publish(self, seconds: float, events_a_second: float) -> tuple[int, float, float]:
        """Publish to random operations. Return the number of events, the seconds, and the CPU seconds."""
        began, cpu_s = time.perf_counter(), time.process_time()
        published, target = 0, round(seconds * events_a_second)
        while published < target and (passed := time.perf_counter() - began) < 2 * seconds:
            due = min(round(passed * events_a_second), target) - published
            batch = min(due, PIPELINE_CALLS)
            self._send([self._event() for _ in range(batch)])
            published += batch
            if batch == due:  # on schedule: wait for the next tick; behind: continue at once
                time.sleep(max(0.0, began + passed + TICK_S - time.perf_counter()))
        return published, time.perf_counter() - began, time.process_time() - cpu_s

    def publish_to_each(self, events: int) -> None:
        """Publish `events` events to each operation, together."""
        for name, keys in self._operations:
            self._send([publish_call(name, keys, [self._entry() for _ in range(events)])])

    def _event(self) -> Call:
        name, keys = self._random.choice(self._operations)
        return publish_call(name, keys, [self._entry()])

    def _entry(self) -> NewEvent:
        return NewEvent("progress", payload(self._padding))

    def _send(self, calls: list[Call]) -> None:
        for at in range(0, len(calls), PIPELINE_CALLS):
            for reply in run_pipeline(self._client, calls[at : at + PIPELINE_CALLS]):
                if isinstance(reply, BrokerError):
                    raise reply
                read_answer(reply)


def payload(padding: bytes) -> bytes:
    return b'{"ts_ns":%d,"message":"%b"}' % (time.time_ns(), padding)
