"""Replicas as users run them, before one back end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests import sse
from tests.api.raw import Client, request
from tests.api.test_operations import OPS
from tests.callback.backend import ALLOW, SECRET, TheirBackend
from tests.servers import DEADLINE_S, ApiReplica

STREAMS = 60


@pytest.fixture
async def replicas(theirs: TheirBackend, redis_url: str, tmp_path: Path) -> AsyncIterator[list[ApiReplica]]:
    decides = {"auth": "callback", "callback_url": theirs.url, "callback_secret": SECRET}
    with ExitStack() as stack:
        both = [
            stack.enter_context(ApiReplica(redis_url, tmp_path / f"log{number}", drain_s=2, **decides))
            for number in range(2)
        ]
        async with httpx.AsyncClient(base_url=both[0].url, timeout=DEADLINE_S) as http:
            (await http.post(OPS, json={"id": "a"})).raise_for_status()
        yield both


async def opened(replica: ApiReplica, path: str = f"{OPS}/a/stream") -> Client:
    client = await Client.connect(replica.url)
    client.send(request(path, "Accept: text/event-stream"))
    await client.opened()
    return client


async def test_a_drain_tells_of_every_connection_once(replicas: list[ApiReplica], theirs: TheirBackend) -> None:
    clients = await asyncio.gather(*(opened(replicas[0]) for _ in range(STREAMS)))
    replicas[0].send(signal.SIGTERM)
    bodies = await asyncio.gather(*(client.body() for client in clients))
    assert all(b'{"reason":"draining"}' in body for body in bodies)
    assert replicas[0].popen is not None
    assert await asyncio.to_thread(replicas[0].popen.wait, DEADLINE_S) == 0, replicas[0].output()
    connections = {action: sorted(it["connection"] for it in theirs.of(action)) for action in ("connect", "disconnect")}
    assert connections["disconnect"] == connections["connect"]
    assert len(set(connections["connect"])) == STREAMS
    assert {it["reason"] for it in theirs.of("disconnect")} == {"draining"}
    for connection in connections["connect"]:
        assert [it["action"] for it in theirs.received if it.get("connection") == connection] == [
            "connect",
            "disconnect",
        ]
    for secret in (SECRET, theirs.url):
        assert secret not in replicas[0].output()
    for client in clients:
        client.close()


async def test_a_newer_connection_replaces_one_of_another_replica(
    replicas: list[ApiReplica], theirs: TheirBackend
) -> None:
    theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
    older = await opened(replicas[0])
    newer = await opened(replicas[1])
    [message] = sse.read(await older.body())
    assert (message.type, message.id) == ("replaced", "replaced")
    assert (await theirs.heard("disconnect"))["connection"] == theirs.of("connect")[0]["connection"]
    again = await opened(replicas[0])
    assert sse.read(await newer.body())[-1].type == "replaced"
    for client in (older, newer, again):
        client.close()


async def test_of_many_that_come_at_once_to_both_one_stays(replicas: list[ApiReplica], theirs: TheirBackend) -> None:
    theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
    clients = await asyncio.gather(*(opened(replica) for replica in replicas * 10))
    await theirs.heard("disconnect", 19)
    assert {it["reason"] for it in theirs.of("disconnect")} <= {"replaced", "rejected"}
    left = {it["connection"] for it in theirs.of("connect")} - {it["connection"] for it in theirs.of("disconnect")}
    assert len(left) == 1
    for client in clients:
        client.close()
    await theirs.heard("disconnect", 20)


async def test_a_back_end_that_hangs_holds_up_nobody_who_stops(
    replicas: list[ApiReplica], theirs: TheirBackend
) -> None:
    theirs.gate.clear()
    clients = [await Client.connect(replicas[0].url) for _ in range(STREAMS)]
    for client in clients:
        client.send(request(f"{OPS}/a/stream"))
    await theirs.heard("connect")
    replicas[0].send(signal.SIGTERM)
    for client in clients:
        assert b"HTTP/1.1 503" in await client.rest()
        client.close()
    assert replicas[0].popen is not None
    assert await asyncio.to_thread(replicas[0].popen.wait, DEADLINE_S) == 0, replicas[0].output()
    assert "Traceback" not in replicas[0].output()
