"""Faults of a Redis server, planted one at a time: each is found, with what mends it, and hides no other."""

import asyncio
import re
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from progress_broker.diagnosis.finding import Check, Level
from progress_broker.diagnosis.grants import forms
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from tests.conftest import make_settings
from tests.deploy.test_redis import USERS, Guarded
from tests.doctor.conftest import configured
from tests.doctor.found import assert_found, bad, examine
from tests.servers import RealRedis, Sentinel, free_port, wait_until
from tests.topologies.cluster import Cluster

MIB = 1 << 20
OF_OPERATORS = {"slowlog|get", "config|get"}
"""What doctor asks that servers need not."""


async def test_a_redis_as_it_should_be_has_no_fault_and_is_not_written_to(good: Any, good_redis: RealRedis) -> None:
    async with await Store.open(make_settings(redis_url=good_redis.url)) as store:
        await store.create(NewOperation(id="import-1"))
    before = good.info("persistence")["rdb_changes_since_last_save"]
    findings = await examine(good_redis.url)
    assert bad(findings) == {(Check.REPLICAS, Level.FAULT)}
    assert good.info("persistence")["rdb_changes_since_last_save"] == before
    assert {"used_bytes", "max_bytes"} <= assert_found(findings, Check.MEMORY, Level.GOOD, "").figures.keys()


async def test_what_it_is_configured_to_do(good: Any, good_redis: RealRedis) -> None:
    with configured(good, maxmemory_policy="allkeys-lru"):
        found = await examine(good_redis.url)
        assert_found(found, Check.EVICTION, Level.FAULT, "set maxmemory-policy noeviction")
        good.setrange("filler", 20 * MIB, b"x")
        with configured(good, maxmemory=10 * MIB):
            good.set("more", "x")  # so the filler goes
    found = await examine(good_redis.url)
    assert_found(found, Check.EVICTED, Level.WARNING, "noeviction")
    good.config_resetstat()
    with configured(good, maxmemory=0):
        assert_found(await examine(good_redis.url), Check.MEMORY, Level.WARNING, "set maxmemory to about half")
    with configured(good, client_output_buffer_limit="normal 1048576 0 0"):
        assert_found(await examine(good_redis.url), Check.BUFFERS, Level.WARNING, "normal 0 0 0")
    with configured(good, appendonly="no"):
        assert_found(await examine(good_redis.url), Check.PERSISTENCE, Level.WARNING, "appendonly yes")
    assert bad(await examine(good_redis.url)) == {(Check.KEYSPACE, Level.FAULT)}  # nobody has used it yet


async def test_how_full_it_is(good: Any, good_redis: RealRedis) -> None:
    good.setrange("filler", 50 * MIB, b"x")  # beside which our connections are little
    used = good.info("memory")["used_memory"]
    for share, level, said in ((0.9, Level.WARNING, "fills up"), (0.97, Level.FAULT, "almost full")):
        with configured(good, maxmemory=round(used / share)):
            assert said in assert_found(await examine(good_redis.url), Check.MEMORY, level, "retention").said
    with configured(good, maxmemory=1):
        found = assert_found(await examine(good_redis.url), Check.MEMORY, Level.FAULT, "CONFIG SET maxmemory")
        assert "rejects writes" in found.said


async def test_one_fault_hides_no_other(folder: Path) -> None:
    """A Redis as it comes, which evicts, is a replica, and has lost its folder."""
    with RealRedis(folder / "server", port=free_port()) as server, redis.Redis.from_url(server.url) as client:
        shutil.rmtree(folder / "server")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "it can't save")
        client.config_set("maxmemory-policy", "volatile-ttl")
        client.replicaof("127.0.0.1", str(free_port()))
        found = await examine(server.url)
        assert "is a replica of 127.0.0.1:" in assert_found(found, Check.ROLE, Level.FAULT, "the master's address").said
        assert_found(found, Check.EVICTION, Level.FAULT, "noeviction")
        assert_found(found, Check.PERSISTENCE, Level.FAULT, "free space on its disk")
        assert_found(found, Check.PERSISTENCE, Level.WARNING, "appendonly yes")
        assert_found(found, Check.MEMORY, Level.WARNING, "set maxmemory")
        # Over TLS it does not answer, and would not say why.
        found = await examine(server.url.replace("redis:", "rediss:"), patience_s=1)
        assert_found(found, Check.REDIS, Level.FAULT, "write redis:// instead of rediss://")


async def test_clocks_that_differ(good_redis: RealRedis) -> None:
    for behind_s, level in ((3, Level.WARNING), (-8, Level.FAULT)):
        found = await examine(good_redis.url, clock=lambda behind_s=behind_s: time.time() - behind_s)
        assert_found(found, Check.CLOCK, level, "NTP")


@asynccontextmanager
async def slow(socket: Path, delay_s: float) -> AsyncIterator[str]:
    """Give the address of a Redis to which each byte takes longer."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await asyncio.sleep(delay_s)
            writer.write(data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, back = await asyncio.open_unix_connection(socket)
        await asyncio.gather(carry(reader, back), carry(to, writer), return_exceptions=True)

    async with await asyncio.start_server(accept, "127.0.0.1", port := free_port()):
        yield f"redis://127.0.0.1:{port}"


async def test_a_redis_that_is_far_away(good_redis: RealRedis) -> None:
    async with slow(good_redis.socket, 0.03) as url:
        found = assert_found(await examine(url, patience_s=3), Check.LATENCY, Level.WARNING, "slow commands")
    assert found.figures["ping_median_s"] > 0.02


def url_of(server: RealRedis, user: str, password: str) -> str:
    return f"unix://{user}:{password}@{server.socket}"


async def test_grants_that_a_user_lacks(good: Any, good_redis: RealRedis) -> None:
    granted = re.sub(r">\S+", ">secret", USERS["replica"])
    async with await Store.open(make_settings(redis_url=good_redis.url)):
        pass
    url = url_of(good_redis, "replica", "secret")
    for rules, level, fix in (
        (granted, Level.GOOD, ""),
        (granted.replace(" +zscan", "").replace(" +script|load", ""), Level.FAULT, "+script|load +zscan"),
        (granted.replace(" +hsetnx", ""), Level.FAULT, "+hsetnx"),
        (granted.replace(" +wait", ""), Level.WARNING, "+wait"),
        (granted.replace(" ~{pb:*", ""), Level.FAULT, "~{pb:*"),
    ):
        good.execute_command("ACL", "SETUSER", "replica", "reset", "on", *rules.split())
        good.acl_log_reset()
        assert_found(await examine(url), Check.GRANTS, level, fix)
        denied = {entry["object"] for entry in good.acl_log()} - OF_OPERATORS
        assert bool(denied) == bool(fix)
    good.acl_deluser("replica")
    found = assert_found(await examine(url), Check.REDIS, Level.FAULT, "user and password")
    assert "secret" not in found.said


def test_each_command_that_replicas_are_granted_is_tried() -> None:
    tried = {*forms("key"), "hsetnx"}
    assert tried == set(re.findall(r"\+(\S+)", USERS["replica"]))


async def test_addresses_of_another_kind(good_redis: RealRedis, folder: Path, cluster_of_masters: Cluster) -> None:
    node = cluster_of_masters.nodes[0].url
    found = await examine(node)
    assert_found(found, Check.ROLE, Level.FAULT, "write redis+cluster://")
    assert_found(found, Check.MEMORY, Level.WARNING, "set maxmemory")  # all the same
    with RealRedis(folder / "master", port=free_port()) as master, Sentinel(folder / "sentinel", master) as sentinel:
        alone = master.url.removeprefix("redis://")
        assert_found(await examine(f"redis+cluster://{alone}"), Check.ROLE, Level.FAULT, "write redis://")
        assert_found(await examine(sentinel.url), Check.ROLE, Level.FAULT, "write redis+sentinel://")
        watching = sentinel.url.replace("redis:", "redis+sentinel:")
        found = await examine(f"{watching}/m")
        assert_found(found, Check.COPIES, Level.WARNING, "start a replica")
        assert {it.at for it in found} >= {alone}
        gone = free_port()
        found = await examine(f"{watching},127.0.0.1:{gone}/m")
        assert_found(found, Check.SENTINELS, Level.GOOD, "")
        assert assert_found(found, Check.SENTINELS, Level.WARNING, "start it").at == f"127.0.0.1:{gone}"
        with redis.Redis.from_url(sentinel.url) as client:
            client.execute_command("SENTINEL", "SET", "m", "quorum", 2)
        found = await examine(f"{watching}/m")
        assert_found(found, Check.SENTINELS, Level.WARNING, "start the other sentinels")
        assert_found(await examine(f"{watching}/other"), Check.REDIS, Level.FAULT, "`sentinel monitor`")
        assert_found(await examine(f"redis+sentinel://{alone}/m"), Check.REDIS, Level.FAULT, "write redis://")
    gone = f"redis+sentinel://127.0.0.1:{free_port()}/m"
    assert_found(await examine(gone), Check.REDIS, Level.FAULT, "start the sentinels")


async def test_each_master_of_a_cluster(cluster_of_masters: Cluster) -> None:
    cluster_of_masters.flush()
    found = await examine(cluster_of_masters.url)
    lonely = [it.at for it in found if (it.check, it.level) == (Check.COPIES, Level.WARNING)]
    assert sorted(lonely) == sorted(f"127.0.0.1:{node.port}" for node in cluster_of_masters.nodes)


async def test_a_master_of_a_cluster_that_hangs(cluster_of_masters: Cluster) -> None:
    hung, *others = cluster_of_masters.nodes
    cluster_of_masters.stop(hung)
    try:
        found = await examine(cluster_of_masters.url, patience_s=1)
    finally:
        cluster_of_masters.cont(hung)
        cluster_of_masters.await_whole()
    away = assert_found(
        [it for it in found if it.at == f"127.0.0.1:{hung.port}"], Check.REDIS, Level.FAULT, "start Redis"
    )
    assert "does not answer within 1 s" in away.said
    assert {it.at for it in found} > {f"127.0.0.1:{node.port}" for node in others}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


async def test_a_certificate_that_expires(guarded: Guarded) -> None:
    url = guarded.url("replica")
    found = await examine(url)
    assert "in 2 days" in assert_found(found, Check.CERTIFICATE, Level.WARNING, "renew").said
    found = await examine(f"{url.partition('?')[0]}?ssl_cert_reqs=none")
    assert "is not checked" in assert_found(found, Check.CERTIFICATE, Level.WARNING, "ssl_ca_certs").said
    later = await examine(url, clock=lambda: time.time() + 3 * 86_400)
    assert "has expired" in assert_found(later, Check.CERTIFICATE, Level.FAULT, "renew").said
    assert {it.check for it in found if it.level is Level.UNCHECKED} == {Check.BUFFERS}
