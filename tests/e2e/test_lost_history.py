"""A failover to a replica whose replication was cut: each watcher is told of the loss, and then all that is stored."""

import asyncio
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from progress_broker.model.entry import encode
from progress_broker.operations.store import Store
from progress_client import AsyncClient, Reset, Snapshot
from tests import sse
from tests.api.transports.transports import TRANSPORTS
from tests.conftest import make_settings
from tests.e2e.conftest import StartReplica, port
from tests.e2e.harness import Api
from tests.e2e.test_eventsource import Script
from tests.servers import RealRedis, free_port, wait_until
from tests.topologies.topology import do
from tests.workers.proxy import Proxy

OPERATION, QUIET = "a", "quiet"

Events = AsyncGenerator[tuple[str, dict[str, Any], str]]
"""Names of events, envelopes and positions."""


class Watcher:
    """Comes back whenever it is sent away, and keeps what it was told by number; a reset takes back what follows it."""

    def __init__(self, listen: Callable[[str | None], Events]) -> None:
        self.n = 0
        self.told: dict[int, Any] = {}
        self.resets: list[str] = []
        self._listen = listen

    async def run(self) -> None:
        position: str | None = None
        while True:
            async with aclosing(self._listen(position)) as events:
                async for name, envelope, id in events:
                    position = id or position
                    self.n = envelope["n"]
                    if name == "snapshot":
                        self.resets += [envelope["reset"]] if "reset" in envelope else []
                        self.told = {n: data for n, data in self.told.items() if n <= envelope["n"]}
                        continue
                    self.told[envelope["n"]] = envelope["data"]
                    if name == "end":
                        return


def transport(url: str, name: str) -> Callable[[str | None], Events]:
    async def listen(position: str | None) -> Events:
        start = {"from": "start"} if position is None else {}
        async with aclosing(TRANSPORTS[name](url).listen(OPERATION, position, **start)) as events:
            async for told in events:
                if told.event in ("away", "rejected"):
                    await asyncio.sleep(0.05)
                elif told.data is not None:
                    yield told.event, told.data, told.id

    return listen


def bundle(url: str) -> Callable[[str | None], Events]:
    async def listen(position: str | None) -> Events:
        headers = {} if position is None else {"Last-Event-ID": position}
        asked = {"operation": [OPERATION, QUIET]}
        http = httpx.AsyncClient(timeout=60)
        async with http, http.stream("GET", f"{url}/v1/stream", params=asked, headers=headers) as answer:
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                blocks, _, body = body.rpartition(b"\n\n")
                for message in sse.read(blocks + b"\n\n"):
                    said = message.json
                    if message.type != "bookmark" and "n" in said and said["operation"] == OPERATION:
                        yield message.type, said, message.id

    return listen


def client(**where: str) -> Callable[[str | None], Events]:
    async def listen(position: str | None) -> Events:
        async with AsyncClient(settings=make_settings(**where)) as reader:
            async for event in reader.watch(OPERATION, after=position or "start"):
                assert not isinstance(event, Snapshot)
                reset = {"reset": event.reason} if isinstance(event, Reset) else {}
                yield event.type, {"n": event.n, "data": event.data} | reset, event.position

    return listen


@asynccontextmanager
async def running(watchers: dict[str, Watcher]) -> AsyncIterator[None]:
    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        for watcher in watchers.values():
            tasks.create_task(watcher.run())
        yield


async def test_each_watcher_has_what_the_log_has(
    old: RealRedis, new: RealRedis, start_replica: StartReplica, tmp_path: Path
) -> None:
    with Proxy(port(old)) as proxy:
        replica = start_replica(proxy.url)
        with Api(replica.url) as api:
            await asyncio.to_thread(play, api)
            watchers = {name: Watcher(transport(api.url, name)) for name in TRANSPORTS}
            watchers["bundle"] = Watcher(bundle(api.url))
            watchers["client over HTTP"] = Watcher(client(url=api.url))
            watchers["client over Redis"] = Watcher(client(redis_url=proxy.url))
            with Script(tmp_path / "out", "follow_operation.mjs", f"{api.url}/", OPERATION, "start") as browser:
                async with running(watchers):
                    await asyncio.to_thread(lose, old, new, proxy, api, watchers, browser)
                lines = browser.finished()[-1]["state"]["log"]
            stored = api.history(OPERATION)
    messages = [event["data"]["message"] for event in stored if event["type"] == "log"]
    assert messages == [f"{part} {n}" for part, count in PARTS.items() if part != "lost" for n in range(count)]
    for name, watcher in watchers.items():
        log = {event["n"]: event["data"] for event in stored if event["n"] >= min(watcher.told)}
        assert watcher.told == log, name
        assert set(watcher.resets) == {"lost"}, name
        assert min(watcher.told) <= len(stored) - PARTS["stored before anybody looked"] - PARTS["after"], name
    shown = [line["message"] for line in lines if line["level"] != "gap"]
    assert [message for message in shown if not message.startswith("lost")] == messages
    assert [line["message"] for line in lines if line["level"] == "gap"] == ["lost"]


PARTS = {"both have": 5, "lost": 4, "stored before anybody looked": 7, "after": 3}


def log(api: Api, part: str) -> None:
    api.log(OPERATION, *(f"{part} {n}" for n in range(PARTS[part])))


def play(api: Api) -> None:
    for id in (QUIET, OPERATION):
        api.create(id=id)
    log(api, "both have")


def lose(old: RealRedis, new: RealRedis, proxy: Proxy, api: Api, watchers: dict[str, Watcher], browser: Script) -> None:
    def told_all() -> bool:
        n, lines = api.show(OPERATION)["events"], browser.lines()
        return all(each.n == n for each in watchers.values()) and bool(lines) and lines[-1]["state"]["n"] == n

    api.publish(OPERATION, "progress", {"percent": 10})
    wait_until(told_all, "each watcher is live")
    wait_until(lambda: do(old, "WAIT", 1, 100) == 1, "the new one has all")
    do(new, "REPLICAOF", "127.0.0.1", free_port())
    log(api, "lost")
    wait_until(told_all, "each watcher was told what is lost")
    old.stop(signal.SIGKILL)
    do(new, "REPLICAOF", "NO", "ONE")
    asyncio.run(publish(new, "stored before anybody looked"))
    proxy.target = port(new)
    wait_until(lambda: httpx.get(f"{api.url}/readyz", timeout=60).status_code == 200, "it is back")
    log(api, "after")
    for id in (OPERATION, QUIET):
        api.finish(id)


async def publish(server: RealRedis, part: str) -> None:
    async with await Store.open(make_settings(redis_url=server.url)) as store:
        events = [encode("log", {"message": f"{part} {n}"}, store.settings) for n in range(PARTS[part])]
        await store.publish(OPERATION, events)
