"""A planned failover behind a stable address: the old master continues as a replica, and connections stay open."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
import redis
from pydantic import SecretStr

from progress_broker.errors import StorageUnavailable
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests import sse
from tests.e2e.conftest import StartReplica, port
from tests.e2e.harness import Api, counting
from tests.servers import DEADLINE_S, RealRedis, eventually, free_port, wait_until
from tests.topologies.topology import do
from tests.workers.harness import finished, python
from tests.workers.proxy import Proxy

# The error of a server on existing connections after it has become a replica.
DEMOTIONS = {
    "read-only": {},
    "without its master": {"replica-serve-stale-data": "no"},
    "that takes writes": {"replica-read-only": "no"},
}


def publish(api: Api, message: str) -> int:
    body = {"type": "log", "data": {"message": message}}
    return int(httpx.post(f"{api.http.base_url}/v1/operations/a/events", json=body, timeout=DEADLINE_S).status_code)


def readyz(api: Api) -> httpx.Response:
    return httpx.get(f"{api.http.base_url}/readyz", timeout=DEADLINE_S)


@pytest.mark.parametrize("demotion", DEMOTIONS)
async def test_a_demoted_master_is_left_by_all(
    old: RealRedis, new: RealRedis, start_replica: StartReplica, demotion: str
) -> None:
    def follows() -> bool:
        return do(old, "INFO", "replication")["connected_slaves"] == 1 and do(old, "WAIT", 1, 1000) == 1

    wait_until(follows, "the new master has all")
    with Proxy(port(old)) as proxy, ExitStack() as stack:
        replica = start_replica(proxy.url, redis_timeout_s=20, probe_interval_s=0.3)
        api = stack.enter_context(Api(replica.url))
        api.create(id="a")
        with ThreadPoolExecutor(20) as threads:  # so that there are many connections
            assert set(threads.map(lambda n: publish(api, f"early {n}"), range(100))) == {200}
        worker = await asyncio.to_thread(python, proxy.url, counting("worked"))
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == "started\n"
        begun = asyncio.Event()
        watching = asyncio.create_task(watch(f"{api.stream('worked')}?from=start", begun))
        await begun.wait()
        for name, value in DEMOTIONS[demotion].items():
            do(old, "CONFIG", "SET", name, value)
        assert await asyncio.to_thread(follows)

        target = free_port() if demotion == "without its master" else port(new)
        do(old, "REPLICAOF", "127.0.0.1", target)
        said = f"{proxy.url} is a replica of 127.0.0.1:{target}: "

        def says_why() -> bool:  # at first it may only know what a write was told
            answer = readyz(api)
            why = answer.json()
            return answer.status_code == 503 and why["reason"] == "redis replica" and why["detail"].startswith(said)

        await asyncio.to_thread(wait_until, says_why, "what it can't do it does not promise, and it says why")
        assert await asyncio.to_thread(publish, api, "meanwhile") == 503
        assert f"events can't be published: {said}" in replica.output()
        assert "Set PROGRESS_REDIS_URL to the master's address" in replica.output()
        do(new, "REPLICAOF", "NO", "ONE")
        proxy.target = port(new)
        await asyncio.to_thread(wait_until, lambda: readyz(api).status_code == 200, "it has left the old one")
        with ThreadPoolExecutor(20) as threads:
            assert set(threads.map(lambda n: publish(api, f"late {n}"), range(100))) == {200}
        stored = api.show("worked")["events"]
        await asyncio.to_thread(
            wait_until, lambda: api.show("worked")["events"] > stored, "the worker has left it, too"
        )
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
        await asyncio.to_thread(finished, worker)
        lines = api.show("worked")["result"]["lines"]
        told = [event["data"]["message"] for event in api.history("worked") if event["type"] == "log"]
        if demotion == "that takes writes":  # writes that it accepted are lost until the worker notices
            assert told[-1] == f"line {lines - 1}"
            assert api.show("worked")["status"] == "succeeded"
        else:
            assert told == [f"line {n}" for n in range(lines)]
        assert (await watching)[-1].json["data"]["status"] == "succeeded"
    with redis.Redis.from_url(new.url) as client:
        assert client.exists("pb:meta")


async def test_a_replica_that_takes_writes_is_left_by_who_asks_it_nothing_but_writes(old: RealRedis) -> None:
    """No blocking call is pending, so nothing reports the demotion. The connection itself asks, once a second."""
    async with await Store.open(Settings(redis_url=SecretStr(old.url))) as store:
        await store.probe(0, "~probe", b"1")
        do(old, "CONFIG", "SET", "replica-read-only", "no")
        do(old, "REPLICAOF", "127.0.0.1", free_port())
        told = list[str]()

        async def is_told() -> bool:
            try:
                await store.probe(0, "~probe", b"1")
            except StorageUnavailable as error:
                told.append(error.detail)
            return len(told) == 2

        await eventually(is_told, "it has asked")
        assert "is no longer the master" in told[0], "by the existing connection"
        assert "is a replica of" in told[1], "by a new one"
        with pytest.raises(redis.exceptions.ConnectionError, match="is a replica of"):
            await store.connections.commands.ping()
        do(old, "REPLICAOF", "NO", "ONE")
        await store.probe(0, "~probe", b"1")


async def watch(url: str, begun: asyncio.Event) -> list[sse.Message]:
    async with httpx.AsyncClient(timeout=60) as client, client.stream("GET", url) as answer:
        body = b""
        async for chunk in answer.aiter_bytes():
            body += chunk
            begun.set()
        return [message for message in sse.read(body) if message.type != "bookmark"]
