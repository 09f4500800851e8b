"""Work that starts while the broker is away goes on, and is reported when it is back."""

import logging
import signal
import socket
import time
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

from progress_broker.settings import Settings
from progress_workers import AsyncOperation, Cancelled, Operation, current
from progress_workers.queues._runs import begin
from progress_workers.transport import sender
from progress_workers.transport.opening import start as starts
from tests.servers import RealRedis, free_port, wait_until
from tests.workers.conftest import Lasting, Run
from tests.workers.harness import Broker, assert_whole, finished, python


@pytest.fixture(autouse=True)
def short_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progress_workers.transport.link.FLUSH_S", 0.2)


@pytest.fixture
def kept(kept_redis: RealRedis, away: RealRedis | Lasting) -> Iterator[Broker]:
    """A broker that is away until `away.start()`."""
    broker = Broker(kept_redis.url, away.url)
    before = Operation.start("before", id="before", settings=broker.settings)
    before.succeed()
    assert before.flush(30)
    away.stop(signal.SIGKILL)
    yield broker
    broker.redis.close()


def settings_of(broker: Broker, name: str) -> Settings:
    """Settings with a link of their own, which has not noticed yet that Redis is away."""
    return broker.settings.model_copy(update={"jwt_audience": name})


OVER_BOTH = pytest.mark.parametrize("carrier", ["redis", "http"], indirect=True)


@OVER_BOTH
def test_a_start_goes_on_and_heals(run: Run, kept: Broker, away: RealRedis | Lasting, caplog: Any) -> None:
    settings = settings_of(kept, run.__name__)

    def work(op: Any) -> None:
        assert current() is op
        assert op.id == "op"
        for row in op.track(range(30)):
            op.log(f"row {row}")
        assert not op.cancelled

    with caplog.at_level(logging.INFO, "progress_workers"):
        run(work, "import", id="op", title="Import", total=30, settings=settings)
        away.start()
        wait_until(lambda: kept.data("op", "end"), "it is created, reported and ended")
    events = kept.events("op")
    assert_whole(events)
    assert [event.data["status"] for event in events if event.type == "status"] == ["pending", "running"]
    assert kept.logged("op") == [f"row {row}" for row in range(30)]
    assert kept.data("op", "progress")[-1]["current"] == 30
    assert (kept.show("op").title, kept.show("op").status) == ("Import", "succeeded")
    assert sum("could not be sent to" in said for said in caplog.messages) == 1
    assert sum("accepts progress again" in said for said in caplog.messages) == 1


@OVER_BOTH
def test_children_are_created_after_their_parent_and_a_cancel_reaches_all(
    kept: Broker, away: RealRedis | Lasting
) -> None:
    with Operation.start("nightly", id="top", lease_s=2, settings=kept.settings) as top:
        child = top.child("region", id="part", lease_s=2)
        pending = Operation.create("region", id="later", parent="top", settings=kept.settings)
        assert not top.flush(0.1)
        away.start()
        assert top.flush(30)
        assert child.flush(30)
        wait_until(lambda: len(kept.data("top", "child")) == 2, "both are told of")
        assert [event["operation"] for event in kept.data("top", "child")] == ["part", pending]
        deadline = kept.lease_deadline("top")
        wait_until(lambda: kept.lease_deadline("top") > deadline, "heartbeats have begun")
        kept.cancel("top", "enough")
        wait_until(lambda: top.cancelled and child.cancelled, "the cancel arrives")
        child.fail("stopped")
        with pytest.raises(Cancelled, match="enough") as cancelled:
            top.raise_if_cancelled()
        top.fail(cancelled.value)
    assert [kept.show(id).status for id in ("top", "part", "later")] == ["cancelled", "failed", "cancelled"]


def test_how_long_a_start_takes_has_a_bound(kept: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server accepts connections and never answers: a start waits `OPEN_S`, and later ones do not wait at all."""
    assert starts.OPEN_S == 1.0
    waited: list[float] = []
    wait = starts.Start.wait

    def counted(self: starts.Start, timeout_s: float) -> bool:
        waited.append(timeout_s)
        return wait(self, 0.05)

    monkeypatch.setattr(starts.Start, "wait", counted)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(_env_file=None, redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}")
        operations = [Operation.start("work", settings=settings) for _ in range(50)]
        assert waited == [starts.OPEN_S]
        assert not operations[0].flush(0.05)


@OVER_BOTH
@pytest.mark.parametrize("other", ["exists", "ended", "deleted"])
def test_where_the_id_is_taken_the_work_goes_on_unreported_and_says_so_once(
    other: str, kept: Broker, away: RealRedis | Lasting, caplog: Any
) -> None:
    away.start()
    Operation.create("other" if other == "exists" else "work", id="op", settings=settings_of(kept, "first"))
    if other == "ended":
        ended = Operation.attach("op", settings=settings_of(kept, "first"))
        ended.succeed()
        assert ended.flush(30)
    if other == "deleted":
        kept.delete("op")
    away.stop(signal.SIGKILL)
    with Operation.start("work", id="op", settings=settings_of(kept, "second")) as op:
        op.log("unseen")
        away.start()
        wait_until(lambda: op._reporter.done, "it is found out")
        op.log("unseen")
        assert not op.cancelled
        assert not op.flush(0.1)
    assert sum("the work of operation op goes on unreported" in said for said in caplog.messages) == 1
    assert kept.logged("op") == []


@OVER_BOTH
def test_a_new_attempt_and_an_attach_begin_when_the_broker_is_back(kept: Broker, away: RealRedis | Lasting) -> None:
    away.start()
    first = Operation.start("work", id="op", total=10, settings=settings_of(kept, "first"))
    first.advance(4)
    first.flush()
    away.stop(signal.SIGKILL)
    joined = Operation.attach("op", end_on_exit=False, settings=settings_of(kept, "second"))
    second = Operation.attach("op", settings=settings_of(kept, "second"))
    second.advance(3)
    joined.advance(2)
    away.start()
    assert second.flush(30)
    assert joined.flush(30)
    wait_until(lambda: kept.show("op").progress["current"] == 4 + 3 + 2, "both continue from what was done")
    away.stop(signal.SIGKILL)
    retry = Operation.start("work", id="op", total=10, new_attempt=True, settings=settings_of(kept, "third"))
    retry.advance(1)
    away.start()
    assert retry.flush(30)
    assert (retry.attempt, kept.show("op").attempt) == (2, 2)
    wait_until(lambda: first.cancelled, "the attempt before is fenced")
    retry.succeed()
    assert retry.flush(30)


@pytest.mark.parametrize("known", [True, False])
def test_a_task_of_a_queue_starts_and_heals(
    known: bool, kept: Broker, away: RealRedis | Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_REDIS_URL", away.url)
    monkeypatch.setenv("PROGRESS_JWT_AUDIENCE", f"queue {known}")
    if known:
        away.start()
        Operation.create("task", id="task-1", title="As enqueued", settings=settings_of(kept, "enqueuer"))
        away.stop(signal.SIGKILL)
    op = begin(Operation, "task-1", {"kind": "task"})
    op.log("works")
    away.start()
    op.succeed()
    assert op.flush(30)
    assert (kept.logged("task-1"), kept.show("task-1").status) == (["works"], "succeeded")
    assert kept.show("task-1").title == ("As enqueued" if known else None)


def test_a_task_that_was_cancelled_before_is_cancelled_when_that_is_known(
    kept: Broker, away: RealRedis | Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRESS_REDIS_URL", away.url)
    away.start()
    Operation.create("task", id="task-2", settings=settings_of(kept, "enqueuer"))
    kept.cancel("task-2")
    away.stop(signal.SIGKILL)
    op = begin(Operation, "task-2", {"kind": "task"})
    assert not op.cancelled
    away.start()
    wait_until(lambda: op.cancelled, "the cancel is found")
    with pytest.raises(Cancelled):
        op.raise_if_cancelled()


def test_what_waits_is_bounded(kept: Broker, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(sender, "MAX_UNOPENED", 5)
    settings = settings_of(kept, "many")
    operations = [Operation.start("work", settings=settings) for _ in range(20)]
    assert sum(op._reporter.done for op in operations) == 15
    assert sum("further ones are not reported" in said for said in caplog.messages) == 1
    for op in operations:
        op.succeed()


async def test_a_loop_is_not_held_up(kept: Broker) -> None:
    async with AsyncOperation.start("work", settings=settings_of(kept, "loop")) as op:
        op.advance()
        assert not await op.flush(0.05)


def test_settings_that_do_not_fit_are_said_and_disturb_no_work(
    broker: Broker, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = broker.settings.model_copy(update={"prefix": f"new-{token_hex(4)}"})
    Operation.start("work", settings=settings).succeed()
    with Operation.start("work", settings=settings.model_copy(update={"lanes": 3})) as op:
        op.advance()
    wait_until(lambda: any("lanes" in said for said in caplog.messages), "it is said")
    assert sum("lanes" in said for said in caplog.messages) == 1
    monkeypatch.setattr("progress_workers.lifecycle.settings._told", set())  # it is run again over other Redis
    monkeypatch.setenv("PROGRESS_REDIS_URL", "http://127.0.0.1")
    caplog.clear()
    for _ in range(2):
        with Operation.start("work") as op:
            op.advance()
        assert len(op.id) == 20
    assert sum("must begin with redis://" in said for said in caplog.messages) == 1


def test_a_process_that_ends_while_redis_is_away_waits_no_longer_than_before(tmp_path: Any) -> None:
    began = time.monotonic()
    process = python(
        f"redis://127.0.0.1:{free_port()}",
        """
        from progress_workers import Operation
        for _ in range(3):
            with Operation.start("work") as op:
                op.log("x")
        """,
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert errors.count("could not be sent to Redis") == 1
    assert "they are lost" in errors
    assert 4 < time.monotonic() - began < 60  # 5 s in total


def test_disabled_work_runs_without_connections_and_threads() -> None:
    # Its own address: on 127.0.0.1, another test may look for a server that had this port before.
    with socket.create_server(("127.0.0.2", 0)) as untouched:
        code = """
            import asyncio, os, signal, threading
            os.environ["PROGRESS_DISABLED"] = "1"
            from progress_workers import AsyncOperation, Operation, current, flush, run_process, tracked
            from progress_workers.queues._runs import begin, create_for_task

            async def work():
                async with AsyncOperation.start("work") as op:
                    op.advance()
                    assert await op.flush()
                    return op.id

            with Operation.start("work", total=2) as op:
                assert current() is op
                assert list(op.track([1, 2])) == [1, 2]
                with op.stage("one"), op.child("part") as child:
                    child.log("x")
                op.publish("thumbnail", {})
                op.update(message="x", metadata={"a": 1})
                assert len({op.id, child.id, Operation.create("work"), asyncio.run(work())}) == 4
                assert op.flush()
                assert tracked(lambda: current().id != op.id)()
                assert not op.cancelled
                run_process(["echo", "shown"])
            assert op.ended
            with Operation.attach("any") as joined:
                assert joined.id == "any"
            create_for_task("task-1", {"kind": "task"})
            with begin(Operation, "task-1", {"kind": "task"}) as task:
                assert task.id == "task-1"
            assert flush()
            assert threading.active_count() == 1
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        """
        process = python(f"redis://127.0.0.2:{untouched.getsockname()[1]}", code)
        assert process.communicate(timeout=120) == ("shown\n", "")
        untouched.settimeout(0)
        with pytest.raises(BlockingIOError):
            untouched.accept()


def test_a_forked_child_of_work_that_waits_counts_too(kept: Broker, away: RealRedis | Lasting) -> None:
    away.start()
    code = """
        import os, sys
        from progress_workers import Operation, flush
        op = Operation.start("work", id="op", total=3)
        op.advance()
        child = os.fork()
        if not child:
            op.advance(2)
            os.write(1, b"away\\n")
            sys.stdin.readline()
            op.flush(60)
            os._exit(0)
        os.waitpid(child, 0)
        op.succeed()
        assert op.flush(60)
    """
    away.stop(signal.SIGKILL)
    process = python(away.url, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "away\n"
    away.start()
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    finished(process)
    assert kept.show("op").progress["current"] == 3
