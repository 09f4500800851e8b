"""Redis stops and restarts. Streams stay open, pings continue, and no event is missed or repeated."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import sse
from tests.e2e.conftest import StartReplica
from tests.e2e.harness import Api, counting
from tests.servers import DEADLINE_S, START_S, RealRedis, eventually, wait_until
from tests.workers.harness import finished, python

AWAY_PINGS = 10  # one ping per second: Redis is unavailable for the time of ten pings


@pytest.fixture
def kept_redis(tmp_path: Path) -> Iterator[RealRedis]:
    """A Redis server that keeps every write over a restart."""
    with RealRedis(tmp_path / "kept", keep=True, options=("--appendfsync", "always")) as server:
        yield server


class Watcher:
    """Reads one stream in the background: its bytes so far, and whether it has ended."""

    def __init__(self, url: str) -> None:
        self.url, self.body, self.ended = url, b"", False

    async def watch(self) -> None:
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client, client.stream("GET", self.url) as answer:
            async for chunk in answer.aiter_bytes():
                self.body += chunk
        self.ended = True

    @property
    def pings(self) -> int:
        return self.body.count(b": ping\n")

    @property
    def numbers(self) -> list[int]:
        return [message.json["n"] for message in sse.published(self.body)]


@pytest.fixture
def api(kept_redis: RealRedis, start_replica: StartReplica) -> Iterator[Api]:
    with Api(start_replica(kept_redis.url, history_length=10_000, ring_length=128).url) as caller:
        yield caller


async def test_ten_seconds_without_redis(kept_redis: RealRedis, api: Api) -> None:
    worker = python(kept_redis.url, counting("import-42"))
    assert worker.stdout is not None
    assert await asyncio.to_thread(worker.stdout.readline) == "started\n"
    watchers = [Watcher(f"{api.stream('import-42')}?from=start") for _ in range(5)]
    async with asyncio.timeout(START_S), asyncio.TaskGroup() as group:
        for watcher in watchers:
            group.create_task(watcher.watch())
        await eventually(lambda: all(b"line 5" in watcher.body for watcher in watchers), "all are live")
        await asyncio.to_thread(kept_redis.stop)
        before = [watcher.pings for watcher in watchers]
        heard = [len(watcher.numbers) for watcher in watchers]
        await eventually(
            lambda: all(watcher.pings >= pings + AWAY_PINGS for watcher, pings in zip(watchers, before, strict=True)),
            "pings go on without Redis",
        )
        assert not any(watcher.ended for watcher in watchers)
        assert worker.poll() is None
        await asyncio.to_thread(kept_redis.start)
        await eventually(
            lambda: all(len(watcher.numbers) > n + 50 for watcher, n in zip(watchers, heard, strict=True)),
            "what was said meanwhile arrives",
        )
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        await asyncio.to_thread(finished, worker)
    shown, told = api.show("import-42"), api.history("import-42")
    lines = shown["result"]["lines"]
    assert [event["data"]["message"] for event in told if event["type"] == "log"] == [f"line {n}" for n in range(lines)]
    assert [event["n"] for event in told] == list(range(1, shown["events"] + 1))
    for watcher in watchers:
        assert [message.json for message in sse.published(watcher.body)] == told
        assert b"event: reconnect" not in watcher.body


def test_without_redis_an_event_source_is_told_to_come_back_and_others_get_the_problem(
    kept_redis: RealRedis, api: Api
) -> None:
    api.create(id="known")
    kept_redis.stop(signal.SIGKILL)
    wait_until(lambda: api.http.get("/readyz").status_code == 503, "it is noticed")
    for operation in ("known", "nowhere"):
        answer = api.http.get(api.stream(operation), headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.headers["cache-control"] == "no-store, no-transform"
        retry = answer.text.split("\n")[0]
        assert int(retry.removeprefix("retry: ")) > 0
        [message] = sse.read(answer.content)
        assert (message.type, message.json, message.id) == ("reconnect", {"reason": "storage-unavailable"}, "")
    for accept in ("*/*", "text/html", "text/event-stream, */*", "application/json", "text/event-stream;q=1", ""):
        check_unavailable(api.http.get(api.stream("known"), headers={"Accept": accept}))
    assert api.http.get("/livez").status_code == 200
    for method, path in (
        ("GET", "/v1/operations"),
        ("POST", "/v1/operations"),
        ("GET", "/v1/operations/known"),
        ("DELETE", "/v1/operations/known"),
        ("POST", "/v1/operations/known/cancel"),
        ("GET", "/v1/operations/known/events"),
        ("GET", "/readyz"),
    ):
        check_unavailable(api.http.request(method, path))
    body = {"type": "log", "data": {"message": "m"}}
    check_unavailable(api.http.post("/v1/operations/known/events", json=body))
    lasting = api.http.get(f"{api.stream('known')}?from=end", headers={"Accept": "text/event-stream"})
    assert lasting.status_code == 422


def check_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
    assert answer.json()["type"] == "storage-unavailable"
    assert answer.headers["retry-after"].isdecimal()
    assert int(answer.headers["retry-after"]) > 0
