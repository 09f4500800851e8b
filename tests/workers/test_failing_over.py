"""A master dies with what its replica never got. Workers send it again, over Redis and over HTTP."""

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from progress_workers import Fenced, Operation
from tests.servers import wait_until
from tests.workers.conftest import Lasting
from tests.workers.harness import Broker, assert_whole
from tests.workers.pair import Pair


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with Pair(tmp_path / "pair") as pair:
        yield pair


@pytest.fixture
def failing(pair: Pair, carrier: str, tmp_path: Path) -> Iterator[Broker]:
    """The Redis that will be the master, and settings of workers that report to the one that is."""
    if carrier == "redis":
        broker = Broker(pair.direct_url, pair.url)
        yield broker
    else:
        with Lasting(pair.url, tmp_path / "server.log", redis_timeout_s=2) as server:
            broker = Broker(pair.direct_url, server.url)
            yield broker
    broker.redis.close()


def test_what_the_new_master_never_got_is_sent_again(
    pair: Pair, failing: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with Operation.start("import", id="op", total=100, interval_s=0.01, settings=failing.settings) as op:
        with Operation.attach("op", interval_s=0.01, end_on_exit=False, settings=failing.settings) as joined:
            silent = Operation.start("import", id="silent", lease_s=1.5, settings=failing.settings)
            silent.log("before")
            for number in range(20):
                if number == 10:
                    assert silent.flush(60)
                    pair.cut()
                    silent.log("lost for a while")
                op.log(f"line {number}")
                op.advance()
                joined.advance(2)
                assert op.flush(60)
                assert joined.flush(60)
            assert silent.flush(60)
            pair.fail_over()
            op.log("after")
            assert op.flush(60), "nothing is gone"
            wait_until(lambda: failing.logged("silent") == ["before", "lost for a while"], "a heartbeat finds it")
            wait_until(lambda: counted(failing) == 60, "also what sends none while it is not asked to")
        assert joined.flush(60)
    for each in ("op", "silent"):
        assert_whole(failing.events(each))
    assert failing.logged("op") == [*(f"line {number}" for number in range(20)), "after"]
    assert failing.show("op").status == "succeeded"
    assert counted(failing) == 60
    silent.succeed()
    assert silent.flush(60)
    said = [record for record in caplog.records if "that it had stored, as in a failover" in record.message]
    assert len(said) == 3, "once for each publisher"
    assert all(record.levelno == logging.WARNING and "0 are gone" in record.message for record in said)


def counted(broker: Broker) -> float:
    return float((broker.show("op").progress or {}).get("current", 0))


def test_an_operation_that_the_new_master_never_got_is_created_again(
    pair: Pair, failing: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"interval_s": 0.01, "settings": failing.settings}
    pair.cut()
    first = Operation.start("import", id="retried", title="Import", lease_s=2, **options)
    created = [
        Operation.start("import", id="op", title="Import", metadata={"customer": "a"}, lease_s=2, total=10, **options),
        Operation.start("import", id="retried", title="Import", lease_s=2, new_attempt=True, **options),
    ]
    joined = Operation.attach("op", end_on_exit=False, **options)
    created[0].update(metadata={"part": 1})
    for op in (*created, joined):
        op.log("before")
        op.advance(2)
        assert op.flush(60)
    pair.fail_over()
    for op in (*created, joined):
        op.log("after")
        assert op.flush(60), "nothing is gone"
    assert sorted(failing.logged("op")) == ["after", "after", "before", "before"]
    assert failing.logged("retried") == ["before", "after"]
    assert counted(failing) == 4
    shown = failing.show("op")
    assert (shown.title, shown.metadata) == ("Import", {"customer": "a", "part": 1})
    assert failing.show("retried").attempt == 2
    first.log("from an attempt that is over")
    wait_until(lambda: first.cancelled, "it hears that it is fenced")
    with pytest.raises(Fenced):
        first.raise_if_cancelled()
    for op in (*created, joined):
        op.succeed()
        assert op.flush(60)
    assert_whole(failing.events("op"))
    assert [failing.show(each).status for each in ("op", "retried")] == ["succeeded", "succeeded"]
    assert "Redis lost operation op, as in a failover: it is created again" in caplog.text


def test_an_operation_of_another_process_is_waited_for_until_it_is_created_again(
    pair: Pair, failing: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"interval_s": 0.01, "settings": failing.settings}
    pair.cut()
    create = {"id": "op", "kind": "import", "lease_s": None}
    failing_over = Broker(pair.url)
    failing_over.create(create)
    with Operation.attach("op", **options) as op:
        op.log("before")
        assert op.flush(60)
        pair.fail_over()
        op.log("after")
        wait_until(lambda: "waiting for the process that created it to create it again" in caplog.text, "it is missed")
        failing.create(create)
        assert op.flush(60)
    assert failing.logged("op") == ["before", "after"]
    assert failing.show("op").status == "succeeded"
    failing_over.redis.close()


def test_an_end_that_no_replica_has_is_sent_again_after_a_failover(
    pair: Pair, failing: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"interval_s": 0.01, "settings": failing.settings}
    with Operation.start("import", id="replicated", **options) as op:
        op.log("line")
    wait_until(lambda: op.flush(60), "a replica has confirmed it")
    wait_until(lambda: statuses(Broker(pair.direct_url), "replicated") == ["succeeded"], "and so it has it")
    ops = [Operation.start("import", id=id, lease_s=2, **options) for id in ("op", "other")]
    for op in ops:
        op.log("before")
        assert op.flush(60)
    pair.cut()
    for op in ops:  # as they are sent again for 10 s, there is no time to lose
        op.succeed({"rows": 7})
    assert not ops[0].flush(60), "no replica has the end"
    pair.fail_over()
    for op in ops:
        wait_until(lambda op=op: "succeeded" in statuses(failing, op.id), "the end is stored again")
        assert_whole(failing.events(op.id))
        assert failing.show(op.id).result == {"rows": 7}
        wait_until(lambda op=op: op.flush(60), "there is no replica any more")


def test_what_was_lost_before_a_spool_is_sent_again_before_what_is_in_it(
    pair: Pair, failing: Broker, tmp_path: Path
) -> None:
    settings = failing.settings.model_copy(update={"spool_dir": tmp_path / "spool", "redis_timeout_s": 1.0})
    (tmp_path / "spool").mkdir()
    old = Operation.start("import", id="old", interval_s=0.01, settings=settings)
    old.log("line 0")
    assert old.flush(60)
    pair.cut()
    new = Operation.start("import", id="new", title="New", interval_s=0.01, settings=settings)
    for op in (old, new):
        op.log("line 1")
        assert op.flush(60)
    pair.master.stop(signal.SIGKILL)
    for op in (old, new):
        op.log("line 2")
        assert op.flush(60), "it is in the spool"
    old.succeed()
    assert old.flush(60)
    new.log("line 3")
    pair.promote()
    assert new.flush(60)
    new.succeed()
    assert new.flush(60)
    wait_until(lambda: "succeeded" in statuses(failing, "old"), "the end is stored")
    for each, lines in (("old", range(3)), ("new", range(1, 4))):
        assert_whole(failing.events(each))
        assert failing.logged(each) == [f"line {number}" for number in lines]
        assert failing.show(each).status == "succeeded"
    assert failing.show("new").title == "New"


def statuses(broker: Broker, operation: str) -> list[str]:
    try:
        return [end["status"] for end in broker.data(operation, "end")]
    finally:
        broker.redis.close()
