"""Replicas and clients are killed at random and come back; each client still sees every event once, in order.

`make test` runs it for a few seconds, `make chaos` for a minute (PROGRESS_CHAOS_S).
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from progress_broker.history import event_log
from progress_broker.model.event import PROGRESS
from progress_broker.operations.store import Store
from tests.chaos.client import Client
from tests.conftest import make_settings
from tests.servers import ApiReplica, RealRedis, eventually

REPLICAS, WORKERS, OPERATIONS, CLIENTS = 2, 5, 20, 200
HISTORY = 1_000_000


async def fault(replicas: list[ApiReplica], clients: list[Client]) -> None:
    """Do something bad."""
    if random.random() < 0.3:
        replica = random.choice(replicas)
        replica.stop(random.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        await asyncio.sleep(random.uniform(0, 0.5))
        replica.start()
    for client in random.sample(clients, 10):
        client.cut()


async def test_every_client_sees_every_event_once_in_order(folder: Path) -> None:
    lasting = float(os.environ.get("PROGRESS_CHAOS_S", "8"))
    with ExitStack() as stack:
        redis = stack.enter_context(RealRedis(folder / "redis"))
        names = [f"op-{i}" for i in range(OPERATIONS)]
        replicas = [
            stack.enter_context(ApiReplica(redis.url, folder / f"api-{i}.log", drain_s=1)) for i in range(REPLICAS)
        ]
        clients = [Client(names[i % OPERATIONS], [replica.port for replica in replicas]) for i in range(CLIENTS)]
        running = [asyncio.create_task(client.run()) for client in clients]
        env = os.environ | {"PROGRESS_REDIS_URL": redis.url, "PROGRESS_HISTORY_LENGTH": str(HISTORY)}
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.chaos.worker", *names[i::WORKERS]],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=env,
                )
            )
            for i in range(WORKERS)
        ]
        loop = asyncio.get_running_loop()
        end = loop.time() + lasting
        while loop.time() < end:
            await fault(replicas, clients)
            await asyncio.sleep(random.uniform(0.05, 0.5))
        for worker in workers:
            await asyncio.to_thread(worker.communicate, timeout=30)
        await eventually(lambda: all(task.done() for task in running), "every client sees its end", 60)
        await asyncio.gather(*running)
        superseded = 0
        async with await Store.open(make_settings(redis_url=redis.url)) as store:
            for name in names:
                kept = {event.n: event.type for event in await event_log.kept(store, name, HISTORY)}
                assert list(kept) == list(range(1, len(kept) + 1))
                for client in clients:
                    if client.operation == name:
                        assert client.faults == []
                        assert client.numbers == sorted(set(client.numbers))
                        missed = kept.keys() - set(client.numbers)  # a slow client gets the newest progress only
                        assert {kept[n] for n in missed} <= {PROGRESS}
                        superseded += len(missed)
        told = f"{sum(c.connections for c in clients)} connections, {sum(len(c.numbers) for c in clients)} events"
        left_out = f"{superseded} of superseded progress left out"
        print(f"chaos: {lasting:.0f} s, {CLIENTS} clients, {told}, none twice, none lost, {left_out}")
