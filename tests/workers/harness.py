"""Shared helpers of the workers' tests: the log in Redis, the other users of an operation, and separate processes."""

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import redis

from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.model.operation import Operation as Shown
from progress_broker.operations.store import Store
from progress_broker.storage.keys import Keyspace
from tests.conftest import read_settings
from tests.forked import Forked, execute
from tests.topologies.topology import client_for

KEYS = Keyspace("pb", 16)


class Event(NamedTuple):
    n: int
    type: str
    data: Any
    producer: str | None
    seq: int | None


def addressed(address: str) -> dict[str, str]:
    """Return the setting by which a worker finds Redis, or a server."""
    return {"url" if address.startswith("http") else "redis_url": address}


class Broker:
    """Redis as a test sees it, and the actions of its users other than the worker."""

    def __init__(self, url: str, address: str = "", **settings: Any) -> None:
        self.settings = read_settings(**addressed(address or url), **settings)
        """Those of workers."""
        self.store_settings = read_settings(redis_url=url, **settings)
        self.redis: Any = client_for(url)

    def events(self, operation: str) -> list[Event]:
        found, keys = [], KEYS.operation(operation)
        for fields in (fields for key in (keys.kept, keys.log) for _, fields in self.redis.xrange(key)):
            producer, seq = fields.get(b"p"), fields.get(b"s")
            data = orjson.loads(fields[b"d"])
            names = (fields[b"t"].decode(), data, producer.decode() if producer else None, int(seq) if seq else None)
            found.append(Event(int(fields[b"n"]), *names))
        return found

    def keys(self, pattern: str) -> list[bytes]:
        """Return the keys of all servers."""
        if not isinstance(self.redis, redis.RedisCluster):
            return list(self.redis.keys(pattern))
        return [key for node in self.redis.get_primaries() for key in self.redis.keys(pattern, target_nodes=node)]

    def data(self, operation: str, type: str) -> list[Any]:
        return [event.data for event in self.events(operation) if event.type == type]

    def logged(self, operation: str) -> list[str]:
        return [line["message"] for line in self.data(operation, "log")]

    def show(self, operation: str) -> Shown:
        shown: Shown = self._ask(lambda store: store.get(operation))
        return shown

    def children(self, operation: str) -> list[str]:
        found: list[str] = self._ask(lambda store: store.children(operation)).ids
        return found

    def cancel(self, operation: str, reason: str | None = None, *, force: bool = False) -> None:
        self._ask(lambda store: store.cancel(operation, reason=reason, by="bob", force=force))

    def signal(self, operation: str, type: str, data: Any = None) -> None:
        self._ask(lambda store: store.signal(operation, NewSignal(type=type, data=data), by="bob"))

    def create(self, new: dict[str, Any]) -> None:
        self._ask(lambda store: store.create(NewOperation.model_validate(new)))

    def delete(self, operation: str) -> None:
        self._ask(lambda store: store.delete(operation, force=True))

    def lease_deadline(self, operation: str) -> float:
        deadline: float = self.redis.zscore(KEYS.operation(operation).lane.leases, operation) or 0
        return deadline

    def now_ms(self) -> float:
        seconds, microseconds = self.redis.time()
        return float(seconds * 1000 + microseconds / 1000)

    def next_attempt(self, operation: str) -> None:
        self.redis.hincrby(KEYS.operation(operation).snapshot, "attempt", 1)

    def set_status(self, operation: str, status: str) -> None:
        self.redis.hset(KEYS.operation(operation).snapshot, "status", status)

    def _ask(self, question: Callable[[Store], Awaitable[Any]]) -> Any:
        async def ask() -> Any:
            async with await Store.open(self.store_settings) as store:
                return await question(store)

        # In a separate thread, because the test's thread may already run an event loop.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, ask()).result()


def assert_whole(events: list[Event]) -> None:
    """Check that nothing is duplicated or missing: `n` counts up by one, and so does each producer's `seq`."""
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    seqs: dict[str, list[int]] = {}
    for event in events:
        if event.producer is not None and event.seq is not None:
            seqs.setdefault(event.producer, []).append(event.seq)
    for taken in seqs.values():
        assert taken == list(range(1, len(taken) + 1))


def environment(address: str) -> dict[str, str]:
    """Return the environment of a process that finds Redis, or a server, through it."""
    found = {f"PROGRESS_{name.upper()}": value for name, value in addressed(address).items()}
    return os.environ | found | {"PYTHONPATH": str(Path(__file__).parents[2])}


def python(address: str, code: str, **outputs: Any) -> subprocess.Popen[str]:
    """Start code in a new process, which finds Redis, or a server, through its environment."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment(address),
        text=True,
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | outputs,
    )


def worker(url: str, code: str) -> Forked:
    """Start code likewise, forked from a process that has loaded the SDK: a tenth of the cost."""
    streams: dict[str, Any] = dict.fromkeys(("stdin", "errors"), subprocess.PIPE)
    env = environment(url)
    return Forked([textwrap.dedent(code)], subprocess.PIPE, env, **streams, main=execute, text=True)


def finished(process: subprocess.Popen[str] | Forked) -> str:
    """Wait for a process that must succeed, and return what it printed."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out
