"""Reports made while Redis fails are stored once, in order, when it is back. The user's code notices nothing."""

import logging
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from progress_broker.model.operation import Status
from progress_workers import Operation, StorageUnavailable
from progress_workers.transport import link
from tests.servers import RealRedis, free_port, wait_until
from tests.workers.harness import Broker, assert_whole
from tests.workers.proxy import Proxy


@pytest.fixture
def kept(kept_redis: RealRedis) -> Iterator[Broker]:
    broker = Broker(kept_redis.url)
    yield broker
    broker.redis.close()


def test_a_restart_of_redis_loses_nothing_and_repeats_nothing(kept: Broker, kept_redis: RealRedis) -> None:
    operations = [
        Operation.start("import", id=f"op-{number}", total=300, settings=kept.settings) for number in range(3)
    ]
    for number in range(300):
        if number == 100:
            kept_redis.stop(signal.SIGKILL)  # while updates are being sent
        if number == 200:
            kept_redis.start()
        for op in operations:
            op.advance(1)
            op.log(f"row {number}")
    for op in operations:
        op.succeed()
        assert op.flush(timeout=60)
        assert_whole(kept.events(op.id))
        assert kept.logged(op.id) == [f"row {number}" for number in range(300)]
        assert kept.data(op.id, "progress")[-1]["current"] == 300
        assert kept.show(op.id).status is Status.SUCCEEDED


def test_a_cancel_is_heard_after_a_restart_of_redis(kept: Broker, kept_redis: RealRedis) -> None:
    with Operation.start("import", id="op", lease_s=None, settings=kept.settings) as op:
        kept_redis.stop(signal.SIGKILL)
        kept_redis.start()
        kept.cancel("op")
        wait_until(lambda: op.cancelled, "the signals are read again")


def test_lost_answers_do_not_double_anything(kept: Broker, kept_redis: RealRedis) -> None:
    port = int(kept_redis.url.rpartition(":")[2])
    with Proxy(port) as proxy:
        settings = Broker(proxy.url).settings
        with Operation.start("import", id="op", interval_s=0.01, settings=settings) as op:
            for number in range(20):
                proxy.losing = number % 3
                op.log(f"row {number}")
                op.advance(1)
                assert op.flush(timeout=60)
        assert proxy.lost >= 10
    assert_whole(kept.events("op"))
    assert kept.logged("op") == [f"row {number}" for number in range(20)]
    assert kept.data("op", "progress")[-1]["current"] == 20


def test_leaving_while_redis_is_away_warns_and_the_end_is_sent_later(
    kept: Broker, kept_redis: RealRedis, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "progress_workers"):
        with Operation.start("import", id="op", settings=kept.settings) as op:
            kept_redis.stop(signal.SIGKILL)
            op.advance(1)
        assert any("not stored yet" in message for message in caplog.messages)
        kept_redis.start()
        wait_until(lambda: kept.data("op", "end"), "the end arrives")
        assert op.flush()
    assert sum("progress could not be sent to Redis" in message for message in caplog.messages) == 1
    assert "Redis accepts progress again" in caplog.messages
    assert_whole(kept.events("op"))


def test_a_full_redis_holds_things_back_until_there_is_room(tmp_path: Path) -> None:
    with RealRedis(tmp_path / "full", port=free_port()) as server:
        broker = Broker(server.url)
        with Operation.start("import", id="op", settings=broker.settings) as op:
            broker.redis.config_set("maxmemory", "1mb")
            op.log("held")
            assert not op.flush(timeout=0.3)
            assert not op.cancelled
            broker.redis.config_set("maxmemory", "0")
        assert broker.logged("op") == ["held"]
        assert_whole(broker.events("op"))
        broker.redis.close()


def test_a_redis_that_forgot_its_scripts_is_taught_again(broker: Broker) -> None:
    with Operation.start("import", id="op", settings=broker.settings) as op:
        broker.redis.script_flush()
        op.log("still here")
    assert broker.logged("op") == ["still here"]


def test_a_redis_that_does_not_let_us_in_is_said_to_be_unavailable(tmp_path: Path) -> None:
    with RealRedis(tmp_path / "strict", port=free_port()) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("ACL SETUSER worker on >secret ~* +@all -client")
        for user in ("worker:secret", "worker:wrong"):
            settings = Broker(server.url.replace("redis://", f"redis://{user}@")).settings
            with pytest.raises(StorageUnavailable):
                Operation.start("import", settings=settings, required=True)


def test_without_the_right_to_client_commands_it_works_all_the_same(tmp_path: Path) -> None:
    with RealRedis(tmp_path / "strict", port=free_port()) as server:
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("ACL SETUSER worker on >secret ~* +@all -client|id -client|unblock")
        broker = Broker(server.url.replace("redis://", "redis://worker:secret@"))
        with Operation.start("import", id="op", lease_s=None, settings=broker.settings) as op:
            broker.cancel("op", "enough")
            wait_until(lambda: op.cancelled, "a cancel is heard")
        broker.redis.close()


def test_leaving_many_blocks_while_redis_is_away_waits_once(
    kept: Broker, kept_redis: RealRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "FLUSH_S", 2.0)
    operations = [Operation.start("work", lease_s=None, settings=kept.settings) for _ in range(50)]
    kept_redis.stop()
    operations[0].log("held back")
    wait_until(lambda: operations[0]._link._sender._failing_since, "it is noticed")
    began = time.monotonic()
    for op in operations:
        with op:
            pass
    assert time.monotonic() - began < 50 * 2.0 / 2  # and not once for each of them
    kept_redis.start()
    assert all(op.flush(30) for op in operations)


def test_a_redis_that_is_kept_busy_by_others_is_waited_for(tmp_path: Path) -> None:
    with RealRedis(tmp_path / "busy", options=("--busy-reply-threshold", "50")) as server:
        broker = Broker(server.url)
        with Operation.start("work", id="op", settings=broker.settings) as op:
            op.flush()
            slow = "local t = redis.call('TIME')[1] + 1; while redis.call('TIME')[1] + 0 <= t do end"
            with ThreadPoolExecutor(1) as thread:
                thread.submit(broker.redis.eval, slow, 0)
                for _ in range(50):
                    op.advance()
                    time.sleep(0.01)
        assert broker.show("op").status == "succeeded"
        broker.redis.close()
