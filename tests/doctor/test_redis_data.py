"""Faults of the data, and of the servers that use them: each is found, with what mends it."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.replicas.presence import Presence, ReplicaState
from progress_broker.storage.keys import meta_key, replica_key, replicas_key
from tests.conftest import make_settings
from tests.doctor.found import assert_found, bad, examine
from tests.servers import ApiReplica, RealRedis, eventually
from tests.topologies.cluster import Cluster

STREAMS = 100
NOBODY = {(Check.REPLICAS, Level.FAULT)}
"""What is true where a test runs no server."""


@pytest.fixture
async def store(good: Any, good_redis: RealRedis) -> AsyncIterator[Store]:
    async with await Store.open(make_settings(redis_url=good_redis.url, max_streams=STREAMS)) as store:
        for number in range(30):
            await store.create(NewOperation(id=f"import-{number}", kind="import"))
        yield store


async def test_a_running_server_is_as_it_should_be(store: Store, good_redis: RealRedis, folder: Path) -> None:
    assert_found(await examine(good_redis.url), Check.REPLICAS, Level.FAULT, "progress-broker serve")
    with ApiReplica(good_redis.url, folder / "api.log", max_streams=STREAMS):
        found: list[Finding] = []

        async def is_well() -> bool:
            found[:] = await examine(good_redis.url, max_streams=STREAMS)
            return bad(found) == set()

        await eventually(is_well, "it tells that it is ready")
        assert assert_found(found, Check.REPLICAS, Level.GOOD, "").figures["replicas"] == 1
        # How many streams it takes is what it tells, whatever the settings of this command are.
        assert_found(await examine(good_redis.url, max_streams=10**9), Check.FILES, Level.GOOD, "")


async def test_whose_data_they_are(store: Store, good: Any, good_redis: RealRedis) -> None:
    found = await examine(good_redis.url, lanes=8)
    assert "16 lanes" in assert_found(found, Check.KEYSPACE, Level.FAULT, "set it to 16").said
    assert_found(found, Check.SWEEP, Level.GOOD, "")  # all the same
    found = await examine(good_redis.url, prefix="other")
    assert_found(found, Check.KEYSPACE, Level.FAULT, "PROGRESS_PREFIX")
    good.hset(meta_key("pb"), "schema", "99")
    assert_found(await examine(good_redis.url), Check.KEYSPACE, Level.FAULT, "upgrade this program")
    good.set(meta_key("pb"), "of another program")
    assert_found(await examine(good_redis.url), Check.KEYSPACE, Level.FAULT, "another PROGRESS_PREFIX")


async def test_what_is_overdue(store: Store, good: Any, good_redis: RealRedis) -> None:
    keys, ago_ms = store.keyspace.lane(3), 1000 * time.time() - 90_000
    good.zadd(keys.expiry, {"old\n": ago_ms})
    good.zadd(keys.leases, {"old": ago_ms})
    found = await examine(good_redis.url)
    assert assert_found(found, Check.SWEEP, Level.FAULT, "start a server").figures["late_s"] > 89
    assert assert_found(found, Check.LEASES, Level.FAULT, "start a server").figures["late_s"] > 89


async def test_what_nothing_would_remove(store: Store, good: Any, good_redis: RealRedis) -> None:
    assert bad(await examine(good_redis.url)) == NOBODY
    good.delete(store.keyspace.operation("import-1").snapshot)
    good.persist(store.keyspace.operation("import-2").snapshot)
    # It has just expired, and is still to be swept.
    gone = store.keyspace.operation("import-3")
    [member] = [it for it in good.zrange(gone.lane.expiry, 0, -1) if it.startswith(b"import-3\n")]
    good.zadd(gone.lane.expiry, {member: 1000 * time.time() - 10})
    good.delete(gone.snapshot)
    found = await examine(good_redis.url)
    orphans = assert_found(found, Check.ORPHANS, Level.WARNING, "eviction")
    assert "1 of 30 listed operations that were looked at have no data, such as import-1:" in orphans.said
    endless = assert_found(found, Check.TTL, Level.WARNING, "progress-broker retention")
    assert "such as import-2:" in endless.said


class Told:
    """What servers tell of themselves, without the servers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def tell(self, id: str, clock: Any = time.time, **changes: Any) -> None:
        streams = type("Streams", (list,), {"replica": id})()
        reason = changes.get("reason")
        hub: Any = SimpleNamespace(
            streams=streams, connections=(), draining=False, ready=reason is None, not_ready_reason=reason
        )
        hub.lag_s, hub.lanes, hub.lanes_away, hub.probes = 0.0, 16, {}, SimpleNamespace(refused="")
        state: ReplicaState = Presence(self._store, self._store.settings, hub, lambda: STREAMS, clock).state()
        settings = state.settings | changes.pop("settings", {})
        state = state.model_copy(update={**changes, "settings": settings})
        commands, prefix = self._store.connections.commands, self._store.keyspace.prefix
        await commands.set(replica_key(prefix, id), state.model_dump_json(), px=15_000)
        await commands.zadd(replicas_key(prefix), {id: 1000 * time.time()})


async def test_servers_that_differ(store: Store, good_redis: RealRedis) -> None:
    told = Told(store)
    await told.tell("one", files_max=-1)
    assert bad(await examine(good_redis.url)) == set()
    await told.tell("two", files_max=-1, version="0.0.9", settings={"feed_length": 7, "auth": "jwt"})
    found = await examine(good_redis.url)
    assert "0.0.9 on two" in assert_found(found, Check.REPLICAS, Level.WARNING, "upgrade the older").said
    differing = assert_found(found, Check.SETTINGS, Level.WARNING, "set PROGRESS_FEED_LENGTH to the same value")
    assert "7 on two" in differing.said
    assert_found(found, Check.SETTINGS, Level.FAULT, "PROGRESS_AUTH")


async def test_a_server_that_is_not_well(store: Store, good_redis: RealRedis) -> None:
    told = Told(store)
    for ahead_s, level in ((3, Level.WARNING), (-60, Level.FAULT)):
        await told.tell("one", clock=lambda ahead_s=ahead_s: time.time() + ahead_s)
        assert assert_found(await examine(good_redis.url), Check.CLOCK, level, "NTP").at.startswith("one ")
    await told.tell("one", files_max=64)
    few = assert_found(await examine(good_redis.url), Check.FILES, Level.WARNING, "LimitNOFILE")
    assert f"PROGRESS_MAX_STREAMS ({STREAMS})" in few.said
    await told.tell("one", files_max=64, streams_max=None)  # of an earlier release
    assert_found(await examine(good_redis.url, max_streams=50), Check.FILES, Level.GOOD, "")
    for refused, check, fix in (
        ("full", Check.MEMORY, "purge"),
        ("read-only", Check.ROLE, "the master"),
        ("away", Check.REDIS, "firewalls"),
        ("failed", Check.GRANTS, "log"),
    ):
        await told.tell("one", refused=refused)
        assert assert_found(await examine(good_redis.url), check, Level.FAULT, fix).at.startswith("one ")
    await told.tell("one", lanes_away=[0, 1, 2])
    assert "lanes 0-2" in assert_found(await examine(good_redis.url), Check.REPLICAS, Level.FAULT, "the master").said
    await told.tell("one", reason="publish fails")
    assert_found(await examine(good_redis.url), Check.REPLICAS, Level.WARNING, "log")  # it has just started
    await told.tell("one", reason="publish fails", started_at=datetime.now(UTC) - timedelta(minutes=1))
    assert "publish fails" in assert_found(await examine(good_redis.url), Check.REPLICAS, Level.FAULT, "log").said


async def test_the_data_of_each_master_of_a_cluster(cluster_of_masters: Cluster) -> None:
    cluster_of_masters.flush()
    async with await Store.open(make_settings(redis_url=cluster_of_masters.url)) as store:
        await store.create(NewOperation(id="import-1"))
        ago_ms = 1000 * time.time() - 90_000
        await store.connections.commands.zadd(store.keyspace.lane(0).expiry, {"old\n": ago_ms})
        found = await examine(cluster_of_masters.url)
        late = assert_found(found, Check.SWEEP, Level.FAULT, "can't reach these lanes")
        assert late.at.startswith("lanes 0-")
        assert len([it for it in found if it.check is Check.SWEEP]) == len(cluster_of_masters.nodes)
    cluster_of_masters.flush()
