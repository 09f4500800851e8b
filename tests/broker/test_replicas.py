"""What is said to be created or ended waits until a replica has it, where there is one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions

from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish, Published
from progress_broker.nodes.replicas import KNOWN_S, MISSED_S, SLOW_S, Replicas
from progress_broker.operations.store import Store
from tests.broker.costs import measured
from tests.conftest import make_settings
from tests.servers import RealRedis
from tests.topologies.cluster import Cluster
from tests.workers.pair import Pair, do

END = NewEvent("end", b'{"status":"succeeded","result":null,"error":null}', "succeeded")
MASTER, ALONE = [b"master", 7, [[b"127.0.0.1", b"6380", b"7"]]], [b"master", 7, []]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path / "pair") as pair:
        yield pair


@pytest.fixture
async def store(pair: Pair) -> AsyncIterator[Store]:
    async with await Store.open(make_settings(redis_url=pair.url)) as store:
        yield store


def test_one_replica_is_waited_for_where_there_is_any() -> None:
    replicas = Replicas(None, 1000)
    assert replicas.ask(5)
    assert replicas.wait(250, 5) is None
    replicas.learn(ALONE, 5)
    assert not replicas.ask(5 + KNOWN_S - 1)
    assert replicas.ask(5 + KNOWN_S)
    replicas.learn(MASTER, 20)
    assert replicas.wait(250, 20) == ("WAIT", 1, 250)
    assert replicas.wait(5000, 20) == ("WAIT", 1, 1000)
    assert replicas.confirmed(2, 20) is True
    assert not replicas.ask(20)
    assert replicas.confirmed(0, 20) is False
    assert replicas.ask(20), "it may be gone"
    assert replicas.wait(250, 20) == ("WAIT", 1, 10), "it is slow, and calls must not queue up"
    assert replicas.wait(250, 20 + SLOW_S) == ("WAIT", 1, 250)


def test_replicas_that_are_gone_are_missed_for_a_while() -> None:
    """The network may have failed that cuts them off, and then the master dies with what only it has."""
    replicas = Replicas(None, 1000)
    replicas.learn(MASTER, 5)
    replicas.learn(ALONE, 20)
    assert replicas.wait(250, 20) == ("WAIT", 1, 10), "none is there that could confirm it"
    assert replicas.confirmed(0, 20) is False
    replicas.learn(ALONE, 5 + MISSED_S)
    assert replicas.wait(250, 5 + MISSED_S) is None
    replicas.learn(MASTER, 700)
    replicas.forget()
    assert replicas.confirmed(0, 700) is None
    assert replicas.ask(700)
    replicas.learn(ALONE, 700)
    assert replicas.wait(250, 700) is None, "the server is another one, which had no replicas"


@pytest.mark.parametrize(
    ("role", "lasts"),
    [
        (redis.exceptions.NoPermissionError("this user has no permissions"), True),
        (redis.exceptions.ResponseError("unknown command 'ROLE', with args beginning with: "), True),
        (redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"), False),
        ([b"slave", b"h", 1, b"connected", 2], False),
        (b"x", False),
    ],
)
def test_nobody_is_waited_for_where_nothing_is_known(role: Any, lasts: bool) -> None:
    replicas = Replicas(None, 1000)
    replicas.learn(role, 5)
    assert replicas.wait(250, 5) is None
    assert replicas.ask(5 + KNOWN_S) is not lasts


def test_as_many_as_wanted_are_waited_for_unless_that_is_not_permitted(caplog: pytest.LogCaptureFixture) -> None:
    two, none = Replicas(2, 100), Replicas(0, 100)
    assert not two.ask(5)
    assert two.wait(250, 5) == ("WAIT", 2, 100)
    assert two.confirmed(1, 5) is False
    assert two.confirmed(redis.exceptions.ResponseError("UNBLOCKED force unblock from blocking operation"), 5) is False
    assert two.confirmed(redis.exceptions.NoPermissionError("this user has no permissions"), 5) is None
    assert "this user has no permissions" in caplog.text
    assert two.wait(250, 5) is None
    none.learn(MASTER, 5)
    assert none.wait(250, 5) is None


async def test_creations_and_ends_are_said_to_be_confirmed_or_not(pair: Pair, store: Store) -> None:
    def said(message: str) -> NewEvent:
        return encode("log", {"message": message}, store.settings)

    for id, confirmed in (("a", True), ("b", False)):
        if not confirmed:
            pair.cut()
        assert (await store.create_for_worker(id, NewOperation(id=id), "")).confirmed is confirmed
        await store.create(NewOperation(id=f"{id}-forced"))
        ended, _ = await store.cancel(f"{id}-forced", force=True)
        assert ended.status == "cancelled"
        publishes = [Publish(id, [said("before")]), Publish(id, [END]), Publish("unknown", [END])]
        before, end, unknown = await store.publish_many(publishes)
        assert isinstance(before, Published)
        assert before.confirmed is None
        assert isinstance(end, Published)
        assert (end.events, end.confirmed) == (before.events + 1, confirmed), "the end does not overtake the rest"
        assert not isinstance(unknown, Published)
        assert unknown.code == "not-found"


async def test_after_scripts_were_flushed_an_end_is_stored_and_confirmed(pair: Pair, store: Store) -> None:
    await store.create(NewOperation(id="a"))
    do(pair.master, "SCRIPT", "FLUSH")
    (end,) = await store.publish_many([Publish("a", [END])])
    assert isinstance(end, Published)
    assert end.confirmed is True


async def test_a_server_without_replicas_is_not_asked_to_wait(redis_server: RealRedis, redis_url: str) -> None:
    async with await Store.open(make_settings(redis_url=redis_url)) as store:
        await store.create(NewOperation(id="a"))
        await store.publish_many([Publish("a")])  # which loads the script
        async with measured(store.connections.commands) as cost:
            (end,) = await store.publish_many([Publish("a", [END])])
            stats = await store.connections.commands.info("commandstats")
        assert isinstance(end, Published)
        assert end.confirmed is None
        assert "cmdstat_wait" not in stats
        assert cost.scripts == 1


async def test_the_replicas_of_a_node_of_a_cluster_are_waited_for(tmp_path: Path) -> None:
    with Cluster(tmp_path, replicas=1) as cluster:
        async with await Store.open(make_settings(redis_url=cluster.url)) as store:
            for number in range(8):
                id, moved = f"a{number}", number == 4
                if moved:
                    cluster.move_slot(store.keyspace.lane_of(id))  # the old owner says so, and has not run it
                created = await store.create_for_worker(id, NewOperation(id=id), "")
                assert created.confirmed is (None if moved else True)
                (end,) = await store.publish_many([Publish(id, [END])])
                assert isinstance(end, Published)
                assert end.confirmed is True
