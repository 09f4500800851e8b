"""A rolling restart: replicas are stopped and started one after the other, under load, and nobody misses anything."""

import asyncio
import signal
import ssl
from typing import Any

import httpx
import orjson

from tests.chaos.client import Client
from tests.deploy.stack import Container, Stack
from tests.servers import DEADLINE_S, START_S, eventually, wait_until
from tests.workers.harness import finished, python

OPERATIONS, WATCHERS, RESTARTS = 3, 8, 2

WORKER = """
    import sys, threading
    from progress_workers import Operation

    enough = threading.Event()

    def work(name):
        with Operation.start("import", id=name, interval_s=0.05) as op:
            line = 0
            while not enough.wait(0.04):
                line += 1
                op.log(f"line {line}")
                op.advance(1)
            op.succeed({"lines": line})

    threads = [threading.Thread(target=work, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    sys.stdin.readline()
    enough.set()
    for thread in threads:
        thread.join()
"""


class Source(Client):
    """One that comes back when it is told, as an EventSource does: any answer but 200 and 204 would end it for good."""

    def __init__(self, operation: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(operation, [port], tls)
        self.retry_s = 3.0
        self.reasons: list[str] = []

    async def run(self) -> None:
        while not self.ended:
            try:
                await self._follow(self.ports[0])
            except (OSError, asyncio.IncompleteReadError) as error:
                self.reasons.append(type(error).__name__)
            finally:
                if self._writer is not None:
                    self._writer.close()
            if not self.ended:
                await asyncio.sleep(self.retry_s)

    def _event(self, block: bytes) -> None:
        lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        self.retry_s = int(lines.get(b"retry", self.retry_s * 1000)) / 1000
        if lines.get(b"event") == b"reconnect":
            self.reasons.append(orjson.loads(lines[b"data"])["reason"])
        super()._event(block)


def show(stack: Stack, operation: str) -> dict[str, Any]:
    shown: dict[str, Any] = httpx.get(f"{stack.url}/v1/operations/{operation}", timeout=DEADLINE_S).json()
    return shown


def restart(stack: Stack, replica: Container) -> None:
    replica.send(signal.SIGTERM)
    assert replica.popen is not None
    assert replica.popen.wait(DEADLINE_S) == 0, replica.output()
    replica.start()
    wait_until(lambda: is_ready(replica), "the replica is ready again", START_S)


def is_ready(replica: Container) -> bool:
    try:
        return httpx.get(f"{replica.url}/readyz", timeout=DEADLINE_S).status_code == 200
    except httpx.TransportError:
        return False


async def test_rolling_restarts_lose_nothing(stack: Stack) -> None:
    for replica in stack.replicas:
        assert replica.env is not None
        replica.env["PROGRESS_RETRY_MS"] = "300"
    names = [f"import-{number}" for number in range(OPERATIONS)]
    with stack.running():
        worker = python(stack.redis_url, f"    NAMES = {names}{WORKER}")
        sources = [Source(name, httpx.URL(stack.url).port or 0) for name in names for _ in range(WATCHERS)]
        async with asyncio.timeout(400), asyncio.TaskGroup() as group:
            for source in sources:
                group.create_task(source.run())
            await eventually(lambda: all(source.numbers for source in sources), "all are served")
            for _ in range(RESTARTS):
                for replica in stack.replicas:
                    await asyncio.to_thread(restart, stack, replica)
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            await asyncio.to_thread(finished, worker)
        for name in names:
            shown = show(stack, name)
            assert shown["status"] == "succeeded"
            for source in (each for each in sources if each.operation == name):
                assert source.faults == []
                assert source.numbers == list(range(1, shown["events"] + 1))
        reasons = {reason for source in sources for reason in source.reasons}
        assert reasons == {"draining"}  # none was torn
        assert all("Traceback" not in replica.output() for replica in stack.replicas)
