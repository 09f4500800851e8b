"""The reading side: the hub as a replica runs it, compared with XREAD over the operations' own streams."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Protocol

import uvloop

from bench.harness import settings_for
from progress_broker.errors import StorageUnavailable
from progress_broker.hub import Hub
from progress_broker.model.event import PROGRESS, read_entry
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.delivery import Start
from progress_broker.stream.frames import Frame, make_frame
from progress_broker.stream.outlet import UNENCODED
from progress_broker.stream.stream import Mode
from progress_broker.stream.subscription import Subscription
from progress_server.server.config import GC_THRESHOLDS

CONNECTIONS = 16
COUNT = 500
"""Entries read from each stream at a time, as in the feed reader."""
_SAMPLED = 8
_SUBSCRIBED_AT_ONCE = 50
_TRIES = 5


class Tally:
    """Counts deliveries since `mark`, and measures the latency of every eighth frame."""

    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        self.delivered = 0
        self._latencies: list[int] = []
        self._cpu_s = time.process_time()

    def count(self, frame: Frame) -> None:
        self.delivered += 1
        if self.delivered % _SAMPLED == 0:
            wire = frame.wire
            at = wire.index(b'"ts_ns":') + 8
            self._latencies.append(time.time_ns() - int(wire[at : wire.index(b",", at)]))

    def answer(self, question: str) -> Any:
        match question:
            case "mark":
                return self.mark()
            case "delivered":
                return self.delivered
            case "read":
                cpu_s = time.process_time() - self._cpu_s
                ordered = sorted(self._latencies) or [0]
                p50, p99 = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
                return {"cpu_s": cpu_s, "delivered": self.delivered, "p50_ms": p50 / 1e6, "p99_ms": p99 / 1e6}
            case _:
                raise ValueError(question)


class Outlet:
    """An outlet that only counts events and is never full. Other benchmarks measure sockets."""

    __slots__ = ("_tally",)
    kind = "bench"
    client = ""
    encoding = UNENCODED

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def write(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            if frame.type == PROGRESS:
                self._tally.count(frame)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Watch(Protocol):
    def __call__(self, settings: Settings, operations: list[str], tally: Tally) -> Any: ...


@asynccontextmanager
async def watch_feed(settings: Settings, operations: list[str], tally: Tally) -> AsyncIterator[None]:
    """The real hub on the real store, with one subscription per operation."""
    async with await Store.open(settings) as store, Hub(store, settings) as hub:
        await hub.started()
        subscriptions: list[Subscription] = []
        todo = iter(operations)
        while some := list(islice(todo, _SUBSCRIBED_AT_ONCE)):
            subscriptions += await asyncio.gather(*(_subscribed(hub, name) for name in some))
        for subscription in subscriptions:
            subscription.attach(Outlet(tally))
        if not all(subscription.mode is Mode.LIVE for subscription in subscriptions):
            raise RuntimeError("not every subscription is live")
        yield


async def _subscribed(hub: Hub, operation: str) -> Subscription:
    for _ in range(_TRIES):
        with suppress(StorageUnavailable):  # the machine is busy; retry, as clients do
            return await hub.subscribe(operation, Start())
    raise RuntimeError(f"operation {operation} can't be subscribed to")


@asynccontextmanager
async def watch_streams(settings: Settings, operations: list[str], tally: Tally) -> AsyncIterator[None]:
    """The simple alternative: blocking XREAD over the logs of the operations, split over several connections."""
    async with await Store.open(settings) as store:
        logs = {store.keyspace.operation(name).log.encode(): name.encode() for name in operations}
        client: Any = await store.connections.blocking(next(iter(logs)).decode())

        async def follow(keys: Iterable[bytes], begun: asyncio.Event) -> None:
            positions = dict.fromkeys(keys, b"0-0")
            outlets = {key: Outlet(tally) for key in positions}
            while True:
                reply = await client.execute_command(
                    "XREAD", "COUNT", COUNT, "BLOCK", BLOCK_MS, "STREAMS", *positions, *positions.values()
                )
                for key, entries in reply or ():
                    positions[key] = entries[-1][0]
                    for entry in entries:
                        event = read_entry(logs[key], entry)
                        if event is not None:
                            outlets[key].write((make_frame(event),))
                begun.set()

        async with asyncio.TaskGroup() as group:
            shares = [share for first in range(CONNECTIONS) if (share := list(logs)[first::CONNECTIONS])]
            begun = [asyncio.Event() for _ in shares]
            tasks = [group.create_task(follow(share, read)) for share, read in zip(shares, begun, strict=True)]
            for read in begun:
                await read.wait()  # each log begins with the `status` event of its operation
            yield
            for task in tasks:
                task.cancel()


VARIANTS: dict[str, Watch] = {"feed": watch_feed, "xread": watch_streams}


def run(pipe: Connection, variant: str, url: str, operations: list[str]) -> None:
    """The process: it watches the operations, and reports deliveries and their cost."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)  # as the server does
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(pipe, variant, url, operations))


async def _run(pipe: Connection, variant: str, url: str, operations: list[str]) -> None:
    tally, ended, loop = Tally(), asyncio.Event(), asyncio.get_running_loop()

    def answer() -> None:
        try:
            (question,) = pipe.recv()
            pipe.send(tally.answer(question))
        except (EOFError, BrokenPipeError):
            loop.remove_reader(pipe.fileno())
            ended.set()

    async with VARIANTS[variant](settings_for(url), operations, tally):
        loop.add_reader(pipe.fileno(), answer)
        pipe.send("ready")
        await ended.wait()
