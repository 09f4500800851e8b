"""A failover to a replica whose replication was cut: each watcher is told of the loss, and then all that is stored."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.model.entry import encode
from progress_broker.model.position import milliseconds
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from progress_broker.storage.keys import Keyspace
from progress_client import AsyncClient, Reset, Snapshot
from tests import sse
from tests.api.transports.transports import TRANSPORTS
from tests.conftest import make_settings
from tests.e2e.conftest import StartReplica, port
from tests.e2e.harness import Api
from tests.e2e.test_eventsource import Script
from tests.servers import RealRedis, eventually, free_port, wait_until
from tests.topologies.topology import client_of, do
from tests.workers.proxy import Proxy

OPERATION, QUIET = "a", "quiet"
KEYS = Keyspace("pb", 16)

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


@pytest.mark.parametrize("both_write", [False, True], ids=["one master at a time", "both accept writes"])
async def test_each_watcher_has_what_the_log_has(
    old: RealRedis, new: RealRedis, start_replica: StartReplica, tmp_path: Path, both_write: bool
) -> None:
    change = accept_writes_in_turn if both_write else fail_over
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
                    await asyncio.to_thread(lose, old, new, proxy, api, watchers, browser, change)
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
    api.log(OPERATION, *messages_of(part))


def play(api: Api) -> None:
    for id in (QUIET, OPERATION):
        api.create(id=id)
    log(api, "both have")


Change = Callable[[Api, RealRedis, RealRedis, Callable[[], bool]], None]
"""Loses and stores the parts of these names; the new master is promoted then, and the old one is away."""


def lose(
    old: RealRedis,
    new: RealRedis,
    proxy: Proxy,
    api: Api,
    watchers: dict[str, Watcher],
    browser: Script,
    change: Change,
) -> None:
    def told_all() -> bool:
        n, lines = api.show(OPERATION)["events"], browser.lines()
        return all(each.n == n for each in watchers.values()) and bool(lines) and lines[-1]["state"]["n"] == n

    api.publish(OPERATION, "progress", {"percent": 10})
    wait_until(told_all, "each watcher is live")
    wait_until(lambda: do(old, "WAIT", 1, 100) == 1, "the new one has all")
    do(new, "REPLICAOF", "127.0.0.1", free_port())
    change(api, old, new, told_all)
    proxy.target = port(new)
    wait_until(lambda: httpx.get(f"{api.url}/readyz", timeout=60).status_code == 200, "it is back")
    log(api, "after")
    for id in (OPERATION, QUIET):
        api.finish(id)


def fail_over(api: Api, old: RealRedis, new: RealRedis, told_all: Callable[[], bool]) -> None:
    log(api, "lost")
    wait_until(told_all, "each watcher was told what is lost")
    old.stop(signal.SIGKILL)
    do(new, "REPLICAOF", "NO", "ONE")
    asyncio.run(publish(new, *messages_of("stored before anybody looked")))


def accept_writes_in_turn(api: Api, old: RealRedis, new: RealRedis, told_all: Callable[[], bool]) -> None:
    """Store all at the new master before the last of what is lost: no position tells one from the other."""
    do(new, "REPLICAOF", "NO", "ONE")
    lost = iter(messages_of("lost"))
    for stored in messages_of("stored before anybody looked"):
        asyncio.run(publish(new, stored))
        if (message := next(lost, None)) is not None:
            later_than(newest(new))
            api.log(OPERATION, message)
            later_than(newest(old))
    later_than(newest(new))
    api.publish(OPERATION, "progress", {"percent": 20})  # lost, too
    assert newest(old) > newest(new)
    wait_until(told_all, "each watcher was told what is lost")
    old.stop(signal.SIGKILL)


def newest(server: RealRedis) -> int:
    """Return the time of the newest event, in milliseconds."""
    with client_of(server) as client:
        ((position, _),) = client.xrevrange(KEYS.operation(OPERATION).log, count=1)  # type: ignore[misc]
    return milliseconds(position)


def later_than(ms: int) -> None:
    wait_until(lambda: time.time() * 1000 > ms + 1, "the next event is later")


def messages_of(part: str) -> list[str]:
    return [f"{part} {n}" for n in range(PARTS[part])]


async def publish(server: RealRedis, *messages: str, ends: bool = False) -> None:
    async with await Store.open(make_settings(redis_url=server.url)) as store:
        events = [encode("log", {"message": message}, store.settings) for message in messages]
        last = [encode("end", {"status": "succeeded"}, store.settings)] if ends else []
        await store.publish(OPERATION, [*events, *last])


@pytest.mark.parametrize("query", [{"operation": [OPERATION, QUIET]}, {"kind": "job"}], ids=["named", "of a kind"])
@pytest.mark.parametrize("both_write", [False, True], ids=["one master at a time", "both accept writes"])
async def test_one_whose_end_is_lost_comes_back_into_a_stream_of_many(
    old: RealRedis, new: RealRedis, start_replica: StartReplica, query: dict[str, Any], both_write: bool
) -> None:
    """If both accept writes, it has ended again before anybody looks, and earlier than it had by what was told."""
    with Proxy(port(old)) as proxy, Api(start_replica(proxy.url).url) as api:
        for id in (QUIET, OPERATION):
            api.create(id=id, kind="job")
        told: list[Any] = []
        reading = asyncio.create_task(read_many(api.url, query, told))
        await eventually(lambda: len(told) == 2, "it has both")
        wait_until(lambda: do(old, "WAIT", 1, 100) == 1, "the new one has all")
        do(new, "REPLICAOF", "NO", "ONE")
        if both_write:
            await publish(new, "goes on", ends=True)
            later_than(newest(new))
        api.finish(OPERATION)
        await eventually(lambda: told[-1]["type"] == "end", "it is told the end")
        ended = len(told)
        old.stop(signal.SIGKILL)
        if not both_write:
            await publish(new, "goes on", ends=True)
        proxy.target = port(new)
        await eventually(lambda: told[-1]["type"] == "end" and len(told) > ended, "it is told what is stored")
        await end(reading)
    again = [each for each in told[ended:] if each["operation"] == OPERATION]
    assert [(it["type"], it["n"]) for it in again] == [("snapshot", 1), ("log", 2), ("end", 3)]
    assert again[0]["reset"] == "lost"


async def read_many(url: str, query: dict[str, Any], told: list[Any]) -> None:
    async with httpx.AsyncClient(timeout=60) as http, http.stream("GET", f"{url}/v1/stream", params=query) as answer:
        body = b""
        async for chunk in answer.aiter_bytes():
            body += chunk
            blocks, _, body = body.rpartition(b"\n\n")
            told += [it.json for it in sse.read(blocks + b"\n\n") if it.type != "bookmark" and "n" in it.json]
