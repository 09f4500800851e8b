"""Shared by the end-to-end tests: an API client, running programs, and a worker without the worker library."""

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import redis

from progress_broker.storage.keys import Keyspace
from tests.servers import START_S, need

ROOT = Path(__file__).parents[2]
KEYS = Keyspace("pb", 16)
OPS = "/v1/operations"
REQUEST_S = 60.0
"""What any request here may take; one that takes longer hangs."""


class Api:
    """A caller of the HTTP API; leaving its block closes its connections."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=REQUEST_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def create(self, **body: object) -> str:
        """Create an operation with a long lease by default, because tests are slow on a busy machine."""
        answer = self.http.post(OPS, json={"lease_s": None} | body)
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id

    def show(self, operation: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.http.get(f"{OPS}/{operation}").raise_for_status().json()
        return shown

    def publish(self, operation: str, type: str, data: object = None) -> None:
        self.publish_all(operation, [(type, data)])

    def publish_all(self, operation: str, events: Sequence[tuple[str, object]]) -> None:
        body = [{"type": type, "data": data} for type, data in events]
        answer = self.http.post(f"{OPS}/{operation}/events", json=body)
        assert answer.status_code == 200, answer.text

    def log(self, operation: str, *messages: str) -> None:
        self.publish_all(operation, [("log", {"message": message}) for message in messages])

    def finish(self, operation: str, result: object = None) -> None:
        self.publish(operation, "end", {"status": "succeeded", "result": result})

    def history(self, operation: str) -> list[dict[str, Any]]:
        """Return all events that are kept so far."""
        events: list[dict[str, Any]] = []
        page: dict[str, Any] = {"done": False}
        query: dict[str, Any] = {"limit": 1000}
        while not page["done"]:
            page = self.http.get(f"{OPS}/{operation}/events", params=query).raise_for_status().json()
            if page["events"] == []:
                break
            events += page["events"]
            query["after"] = page["position"]
        return events

    def stream(self, operation: str) -> str:
        return f"{self.url}{OPS}/{operation}/stream"


@cache
def printed_script(name: str) -> str:
    """Return what a worker in another language is told to load into Redis."""
    done = run([sys.executable, "-m", "progress_cli", "script", name], START_S)
    assert done.returncode == 0, done.stderr
    text: str = done.stdout
    return text


class ForeignWorker:
    """A worker that uses only what docs/protocol.md describes: the keys, and the scripts that are printed."""

    def __init__(self, url: str) -> None:
        self.redis: Any = redis.Redis.from_url(url)

    def create(self, operation: str) -> None:
        spec = '{"kind":"operation","lease_s":15}'
        kept = ("HISTORY", 5000, "FEED", 10_000, "RETENTION", 86_400_000, "IDLE", 604_800_000)
        self._run("create", operation, spec, "INDEX", "kind:operation", *kept, "LEASE", 15_000)

    def publish(self, operation: str, type: str, data: bytes, status: str = "") -> None:
        self._run("publish", operation, "EVENT", type, data, *(("STATUS", status) if status else ()))

    def add(self, operation: str, fields: dict[str, bytes], *, honest: bool = True) -> None:
        """Write an entry into the feed and the log without the script. An honest worker also updates the count."""
        keys = KEYS.operation(operation)
        n = int(self.redis.hget(keys.snapshot, "n")) + 1
        kept: dict[str, bytes] = {"n": str(n).encode()} | fields
        at = self.redis.xadd(keys.lane.feed, {"o": operation} | kept)
        self.redis.xadd(keys.log, kept, id=at)
        if honest:
            self.redis.hset(keys.snapshot, mapping={"n": n, "position": at})

    def _run(self, script: str, operation: str, *args: str | bytes | int) -> None:
        keys = KEYS.operation(operation)
        lane = (keys.lane.feed, keys.lane.index, keys.lane.expiry, keys.lane.leases)
        text = printed_script(script)
        reply = self.redis.eval(text, 7, keys.snapshot, keys.log, keys.signals, *lane, operation, *args)
        assert reply[0] == b"ok", reply


def counting(operation: str) -> str:
    """Return the code of a worker that prints `started` and logs numbered lines until it reads a line. Then it succeeds
    with the number of lines."""
    return f"""
    import sys, threading
    from progress_workers import Operation

    enough = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
    with Operation.start("import", id="{operation}", lease_s=60, interval_s=0.05) as op:
        print("started", flush=True)
        lines = 0
        while not enough.wait(0.05):
            op.log(f"line {{lines}}")
            op.advance(1)
            lines += 1
        op.succeed({{"lines": lines}})
    """


def run(command: list[str], deadline_s: float = REQUEST_S, *, text: bool = True) -> subprocess.CompletedProcess[Any]:
    """Run a program to its end. If it is still running at the deadline, it is killed and the test fails."""
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=text, timeout=deadline_s)


def node() -> str:
    return need("node", "nodejs")


def node_with_packages() -> str:
    """Return the path of node; fail unless the clients from the npm registry are installed."""
    if not (ROOT / "tests" / "node_modules" / "eventsource").is_dir():
        raise RuntimeError("the npm package eventsource is missing: `make setup` runs `npm ci` in tests/")
    return node()
