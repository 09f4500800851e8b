"""Redis fails over or rejects calls: temporary errors are retried, and losses are reported."""

import asyncio
from pathlib import Path

import pytest

from progress_workers import AsyncOperation, Fenced, NotFound, Operation, OperationEnded
from tests.servers import RealRedis, free_port, wait_until
from tests.workers.conftest import Run
from tests.workers.harness import KEYS, Broker, assert_whole, finished, python
from tests.workers.proxy import Proxy

pytestmark = pytest.mark.one_server  # which it empties, and whose connections it cuts

PASSING = [
    b"MOVED 12972 127.0.0.1:21403",
    b"ASK 12972 127.0.0.1:21403",
    b"TRYAGAIN Multiple keys request during rehashing of slot",
    b"CLUSTERDOWN Hash slot not served",
    b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    b"READONLY You can't write against a read only replica.",
    b"ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write against a read only replica.",
    b"LOADING Redis is loading the dataset in memory",
    b"UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    b"NOREPLICAS Not enough good replicas to write.",
    b"BUSY Redis is busy running a script.",
    b"NOAUTH Authentication required.",
    b"NOPERM this user has no permissions to run the 'evalsha' command",
    b"OOM command not allowed when used memory > 'maxmemory'.",
    b"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    b"CROSSSLOT Keys in request don't hash to the same slot",
    b"WRONGTYPE Operation against a key holding the wrong kind of value",
    b"ERR max daily request limit exceeded. Limit: 10000, Usage: 10000.",
    b"ERR upstream failure",
    b"SOMETHING nobody has heard of",
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: error.decode()[:40])
def test_no_error_of_redis_has_an_operation_given_up(kept_redis: RealRedis, error: bytes) -> None:
    """A script rejects a call with a normal reply; every Redis error counts as temporary."""
    kept = Broker(kept_redis.url)
    with Proxy(int(kept_redis.url.rpartition(":")[2])) as proxy:
        settings = Broker(proxy.url).settings
        with Operation.start("import", id="op", interval_s=0.01, settings=settings) as op:
            op.log("before")
            assert op.flush(timeout=60)
            proxy.rejecting = error
            op.log("meanwhile")
            wait_until(lambda: proxy.rejected >= 2, "it is tried again")
            assert not op.flush(timeout=0.01)
            proxy.rejecting = None
            op.log("after")
            assert op.flush(timeout=60)
            assert not op.cancelled
    assert_whole(kept.events("op"))
    assert kept.logged("op") == ["before", "meanwhile", "after"]
    assert kept.data("op", "end") == [{"status": "succeeded", "result": None, "error": None}]
    kept.redis.close()


@pytest.mark.parametrize("options", [(), ("--rename-command", "HELLO", "")], ids=["asked by HELLO", "asked by INFO"])
def test_a_demotion_between_two_reads_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: tuple[str, ...]
) -> None:
    """Redis reports a demotion only to blocked calls, and a replica that takes writes rejects none."""
    with RealRedis(tmp_path / "demoted", options=options) as redis:
        demoted = Broker(f"{redis.url}?protocol=2", redis.url)  # so that the test's client does not need HELLO
        with Operation.start("import", id="op", interval_s=0.01, settings=demoted.settings) as op:
            wait_until(lambda: blocked(demoted), "it reads signals")
            demoted.redis.config_set("replica-read-only", "no")
            with demoted.redis.pipeline(transaction=True) as both:
                both.client_unblock(*blocked(demoted))
                both.replicaof("127.0.0.1", free_port())
                both.execute()
            wait_until(lambda: op.log("line") or "is a replica of 127.0.0.1" in caplog.text, "it is noticed")
            assert not op.flush(timeout=0.01)
            demoted.redis.replicaof("NO", "ONE")
            assert op.flush(timeout=60)
        assert_whole(demoted.events("op"))
        demoted.redis.close()


def blocked(broker: Broker) -> list[str]:
    """Return the ids of the clients whose call waits in Redis."""
    return [client["id"] for client in broker.redis.client_list() if "b" in client["flags"]]


def test_what_another_program_does_to_one_operation_holds_up_no_other(broker: Broker) -> None:
    ops = [Operation.start("import", id=f"op-{n}", interval_s=0.01, settings=broker.settings) for n in range(3)]
    broker.redis.set(KEYS.operation("op-0").snapshot, "another program's")
    ops[0].log("lost")
    assert not ops[0].flush(timeout=20)
    for n in range(20):
        for op in ops[1:]:
            op.log(f"line {n}")
            assert op.flush(timeout=60)
    for op in ops[1:]:
        op.succeed()
        assert op.flush(timeout=60)


def lose(broker: Broker, *operations: str) -> None:
    """Delete operations without a trace, as a failover or a flush does."""
    for operation in operations:
        keys = KEYS.operation(operation)
        broker.redis.delete(keys.snapshot, keys.log, keys.signals)


def test_an_operation_that_redis_lost_is_created_again(
    run: Run, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def body(op: Operation | AsyncOperation) -> None:
        op.log("before")
        wait_until(lambda: broker.logged("lost") == ["before"], "it is stored")
        for n in range(3):
            lose(broker, "lost")
            op.log(f"line {n}")
            wait_until(lambda n=n: f"line {n}" in broker.logged("lost"), "it is stored again")

    run(body, "import", id="lost", interval_s=0.01, settings=broker.settings)
    assert_whole(broker.events("lost"))
    assert broker.logged("lost") == ["before", "line 0", "line 1", "line 2"]
    assert broker.show("lost").status == "succeeded"
    assert caplog.text.count("Redis lost operation lost, as in a failover: it is created again") == 3


def test_flush_tells_the_loss_of_an_operation_that_nobody_creates_again(
    broker: Broker, storage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its worker has nothing to create it with. It gives it up after 10 s."""
    for id in ("lost", "lost-too", "lost-here"):
        broker.create({"id": id, "lease_s": None})
    elsewhere = python(storage, LOSING)
    op = Operation.attach("lost", interval_s=0.01, settings=broker.settings)
    assert op.flush(timeout=60)
    lose(broker, "lost")
    op.log("line")

    async def flushed() -> bool:
        other = await AsyncOperation.attach("lost-too", interval_s=0.01, settings=broker.settings)
        await asyncio.to_thread(lose, broker, "lost-too")
        other.log("line")
        return await other.flush(timeout=60)

    assert not asyncio.run(flushed())
    assert not op.flush(timeout=60)
    assert not op.flush(timeout=60)
    with pytest.raises(NotFound, match="a failover or restart lost it"):
        op.raise_if_cancelled()
    [said] = [message for message in caplog.messages if "stopped reporting operation lost," in message]
    assert "because operation lost no longer exists in Redis" in said
    assert "events that were not stored yet and are lost: " in said
    assert finished(elsewhere) == "True False True"


LOSING = """
    import os, redis, progress_workers
    from progress_broker.storage.keys import Keyspace
    op = progress_workers.Operation.attach("lost-here")
    flushed = [progress_workers.flush(20)]
    client = redis.Redis.from_url(os.environ["PROGRESS_REDIS_URL"])
    client.delete(Keyspace("pb", 16).operation("lost-here").snapshot)
    op.log("line")
    print(*flushed, progress_workers.flush(60), progress_workers.flush(20), end="")
"""


def test_an_attempt_whose_beginning_a_failover_lost_begins_again(broker: Broker) -> None:
    first = Operation.start("import", id="op", settings=broker.settings)
    with Operation.start("import", id="op", new_attempt=True, interval_s=0.01, settings=broker.settings) as op:
        op.log("before")
        assert op.flush(timeout=60)
        broker.redis.hset(KEYS.operation("op").snapshot, "attempt", "1")
        op.log("after")
        assert op.flush(timeout=60)
        assert broker.show("op").attempt == 2
    assert broker.logged("op") == ["before", "after"]
    with pytest.raises((Fenced, OperationEnded)), first:  # whichever it is told first
        pass


def test_signals_that_redis_has_lost_hide_no_later_ones(broker: Broker) -> None:
    """The clock of a promoted server may be behind: what it adds comes before what was heard."""
    with Operation.start("import", id="op", settings=broker.settings) as op:
        broker.signal("op", "pause")
        assert next(op.signals(timeout=60)).type == "pause"
        key = KEYS.operation("op").signals
        (_, fields), *_ = broker.redis.xrevrange(key, count=1)
        broker.redis.delete(key)
        broker.redis.xadd(key, fields, id="1-1")
        broker.redis.client_kill_filter(_type="normal", skipme=True)
        assert next(op.signals(timeout=60)).type == "pause"
