"""With a spool, a worker that is killed while the broker is away loses nothing: the next start there sends it."""

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish
from progress_workers import Operation, flush
from progress_workers.core.opening import Opening
from progress_workers.spool.file import HEADER, SpoolFile
from progress_workers.spool.records import decode, encode
from progress_workers.spool.spool import Spool, broker_name
from progress_workers.spool.unsent import Record, Unsent
from tests.forked import Forked
from tests.servers import RealRedis, wait_until
from tests.workers.conftest import Lasting
from tests.workers.harness import Broker, assert_whole, worker

STARTED = """
    import os, sys, time
    from progress_workers import Operation
    op = Operation.start("work", id=sys.argv[1], total=10, interval_s=0.01)
    for number in range(10):
        op.advance()
        op.log(f"row {number}")
    print(op.flush(60), flush=True)
    time.sleep(600)
"""
RUNNING = """
    import os, sys, time
    from progress_workers import Operation
    op = Operation.start("work", id=sys.argv[1], required=True)
    op.log("before")
    op.flush()
    print("running", flush=True)
    sys.stdin.readline()
    op.log("after")
    print(op.flush(60), flush=True)
    time.sleep(600)
"""
ENDED = """
    import sys
    from progress_workers import Operation
    with Operation.start("work", id=sys.argv[1]) as op:
        op.log("all of it")
"""
NEXT = """
    from progress_workers import Operation, flush
    from progress_workers.transport.registry import link_to
    from progress_broker.settings import load_settings
    import time
    with Operation.start("next", required=True):
        spooler = link_to(load_settings())._sender._spooler
        until = time.monotonic() + 60
        while spooler.waits and time.monotonic() < until:
            time.sleep(0.01)
"""


class Machine:
    """Processes that share a spool, and what they report to."""

    def __init__(self, redis: RealRedis, away: RealRedis | Lasting, folder: Path) -> None:
        self.away, self.folder = away, folder
        self.broker = Broker(redis.url, away.url)
        self._resources = ExitStack()

    def start(self, code: str, *args: str, **env: str) -> Forked:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"PROGRESS_SPOOL_DIR": str(self.folder), **env}.items():
                patch.setenv(name, value)
            process = worker(self.away.url, f"import sys\nsys.argv[1:] = {list(args)!r}\n{_dedented(code)}")
        self._resources.enter_context(process)
        self._resources.callback(process.kill)
        return process

    def killed(self, code: str, *args: str, **env: str) -> None:
        """Run code that says whether its reports are on disk, and kill it with SIGKILL."""
        process = self.start(code, *args, **env)
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.kill()
        process.wait(60)

    def sent(self) -> None:
        """Start the next process, which sends what is left."""
        process = self.start(NEXT)
        assert process.wait(120) == 0, process.stderr and process.stderr.read()
        assert self.files() == []

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.spool"))

    def close(self) -> None:
        self._resources.close()
        self.broker.redis.close()


def _dedented(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)


@pytest.fixture
def machine(kept_redis: RealRedis, away: RealRedis | Lasting, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(kept_redis, away, tmp_path / "spool")
    yield machine
    machine.close()


@pytest.mark.parametrize("carrier", ["redis", "http"], indirect=True)
def test_what_killed_workers_could_not_send_is_sent_by_the_next_start(machine: Machine) -> None:
    running = machine.start(RUNNING, "running")
    assert running.stdout is not None
    assert running.stdin is not None
    assert running.stdout.readline() == "running\n"
    machine.away.stop(signal.SIGKILL)
    running.stdin.write("go\n")
    running.stdin.flush()
    assert running.stdout.readline() == "True\n"
    running.kill()
    running.wait(60)
    machine.killed(STARTED, "started")
    ended = machine.start(ENDED, "ended")
    assert ended.wait(60) == 0
    assert len(machine.files()) == 3
    machine.away.start()
    machine.sent()
    broker = machine.broker
    for id in ("running", "started", "ended"):
        assert_whole(broker.events(id))
    assert broker.logged("running") == ["before", "after"]
    assert broker.logged("started") == [f"row {number}" for number in range(10)]
    assert (broker.show("started").progress["current"], broker.show("started").status) == (10, "running")
    assert (broker.logged("ended"), broker.show("ended").status) == (["all of it"], "succeeded")
    assert machine.folder.stat().st_mode & 0o077 == 0


def test_a_process_that_lives_sends_its_own_spool_in_order_and_more_than_memory_would_hold(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = machine.broker.settings.model_copy(update={"spool_dir": machine.folder})
    op = Operation.start("work", id="op", total=3, settings=settings)
    op.log("line 0")
    assert op.flush(30)
    machine.away.stop(signal.SIGKILL)
    for number in range(1, 12_001):
        op.log(f"line {number}")
        if not number % 1000:
            assert op.flush(60)
    child = op.child("part", id="part")
    child.succeed()
    assert child.flush(60)
    retried = Operation.start("work", id="retried", new_attempt=True, settings=settings)
    retried.log("seen")
    assert retried.flush(60)
    machine.away.start()
    wait_until(lambda: machine.broker.data("part", "end"), "the last record is sent")
    op.advance(3)
    op.succeed()
    assert op.flush(60)
    retried.succeed()
    assert retried.flush(60)
    assert_whole(machine.broker.events("retried"))
    assert machine.broker.show("part").parent == "op"
    kept = machine.broker.logged("op")  # the history is bounded, and what it keeps has no gap
    assert kept == [f"line {number}" for number in range(12_001 - len(kept), 12_001)]
    assert machine.broker.show("op").events > 12_000
    assert machine.broker.show("op").status == "succeeded"
    wait_until(lambda: machine.files() == [], "the file is removed")


def test_processes_that_start_at_once_send_each_record_once(machine: Machine) -> None:
    machine.away.stop(signal.SIGKILL)
    for number in range(3):
        machine.killed(STARTED, f"op-{number}")
    machine.away.start()
    processes = [machine.start(NEXT) for _ in range(3)]
    for process in processes:
        assert process.wait(120) == 0
    assert machine.files() == []
    for number in range(3):
        assert_whole(machine.broker.events(f"op-{number}"))
        assert machine.broker.logged(f"op-{number}") == [f"row {row}" for row in range(10)]


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage"])
def test_a_damaged_record_and_what_follows_it_are_left_out(damage: str, machine: Machine) -> None:
    machine.away.stop(signal.SIGKILL)
    machine.killed(STARTED, "op")
    (path,) = machine.files()
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-3])
    elif damage == "flipped":
        path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    else:
        path.write_bytes(data + b"\xff" * 40)
    machine.away.start()
    machine.sent()
    assert_whole(machine.broker.events("op"))
    logged = machine.broker.logged("op")
    assert logged == [f"row {row}" for row in range(len(logged))]
    assert damage != "garbage" or len(logged) == 10


@pytest.mark.parametrize("limit", ["setting", "disk"])
def test_a_full_spool_leaves_the_rest_in_memory(limit: str, machine: Machine) -> None:
    code = """
        import resource, sys
        from progress_workers import Operation
        if sys.argv[1] == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        op = Operation.start("work", id="op")
        for number in range(100):
            op.log("x" * 1000)
            stored = op.flush(0.2)
            if not stored:
                break
        print(stored, number, flush=True)
        sys.stdin.readline()
        op.succeed()
        print(op.flush(60), flush=True)
    """
    machine.away.stop(signal.SIGKILL)
    env = {"PROGRESS_SPOOL_MAX_BYTES": "20000"} if limit == "setting" else {}
    process = machine.start(code, limit, **env)
    assert process.stdout is not None
    assert process.stdin is not None
    stored, number = process.stdout.readline().split()
    assert stored == "False"
    assert sum(path.stat().st_size for path in machine.files()) <= 20_000
    machine.away.start()
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "True\n"
    _, errors = process.communicate(timeout=60)
    assert errors.count("can't be written to the spool") == 1
    assert len(machine.broker.logged("op")) == int(number) + 1
    assert_whole(machine.broker.events("op"))


@pytest.mark.parametrize("carrier", ["redis", "http"], indirect=True)
def test_a_dead_worker_does_not_take_over_from_a_living_one(machine: Machine) -> None:
    code = """
        import sys, time
        from progress_workers import Operation
        op = Operation.start("work", id="op", new_attempt=True)
        op.log("of the dead")
        print(op.flush(60), flush=True)
        time.sleep(600)
    """
    settings = machine.broker.settings
    with Operation.start("work", id="op", settings=settings) as op:
        flush()
        machine.away.stop(signal.SIGKILL)
        machine.killed(code)
        machine.away.start()
        machine.sent()
        op.log("of the living")
    assert machine.broker.logged("op") == ["of the living"]
    assert machine.broker.show("op").attempt == 1


def test_the_format_has_another_number_when_its_fields_change() -> None:
    """A release must not read what it does not understand: change `HEADER` together with these."""
    assert HEADER == b"pbspool1"
    assert tuple(orjson.loads(encode("k", Publish("a", after=("p", 2))))["publish"]) == (
        "operation",
        "entries",
        "attempt",
        "begins",
        "created_ms",
        "worker",
        "expect",
        "lease_ms",
        "as_observer",
        "traceparent",
    )
    assert Opening._fields == (
        "operation",
        "new",
        "traceparent",
        "adopts",
        "new_attempt",
        "worker",
        "only_creates",
        "cancel_counts_from_s",
    )
    entry = NewEvent("log", b'{"a": 1}', "", "p", 3, (1, 2.5))
    publish = Publish("op", [entry], 2, created_ms=7, worker="w")
    opening = Opening("op", NewOperation(id="op", lease_s=None), new_attempt=True)
    assert decode(encode("key", publish)) == ("key", publish)
    assert decode(encode("key", opening)) == ("key", opening)


def test_a_file_of_another_format_stays_and_is_named(tmp_path: Path, caplog: Any) -> None:
    foreign = tmp_path / "broker-1-x.spool"
    foreign.write_bytes(b"pbspool9 and more")
    spool = Spool(tmp_path, "broker", 1000)
    assert spool.take_left() == []
    assert spool.take_left() == []
    assert foreign.exists()
    assert "of another release" in caplog.text
    (tmp_path / "broker-2-x.spool").write_bytes(b"")
    spool.take_left()
    assert "broker-2-x.spool is damaged; delete it" in caplog.text


OPEN = {"operation": "bad", "new": {"id": "bad"}, "worker": "w"}
PUBLISH = {"operation": "bad", "entries": [["log", '{"message": "x"}', "", "p", 1, None]]}


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"5",
        b"[]",
        b"{}",
        b'{"open": 5}',
        orjson.dumps({"key": "k", "open": OPEN | {"operation": 5}}),
        orjson.dumps({"key": [], "open": OPEN}),
        orjson.dumps({"key": "k", "publish": PUBLISH | {"operation": None}}),
        orjson.dumps({"key": "k", "publish": PUBLISH | {"entries": [[5, 5, 5, 5, 5, 5]]}}),
        orjson.dumps({"key": "k", "publish": PUBLISH | {"entries": [["log", "x", {}, {}, {}, None]]}}),
        orjson.dumps({"key": "k", "publish": PUBLISH | {"attempt": "x", "lease_ms": []}}),
        orjson.dumps({"key": {}, "publish": PUBLISH}),
        "position",
    ],
    ids=str,
)
def test_whatever_is_in_a_file_what_lives_is_sent(
    record: bytes | str, broker: Broker, tmp_path: Path, caplog: Any
) -> None:
    settings = broker.settings.model_copy(update={"spool_dir": tmp_path})
    file = SpoolFile.create(tmp_path / f"{broker_name(settings)}-1-x.spool")
    file.append([record if isinstance(record, bytes) else b"{}"])
    if record == "position":
        file.sent = 1 << 40
    file.close()
    with Operation.start("work", id="living", settings=settings, required=True) as op:
        op.log("goes on")
        assert op.flush(60)
    wait_until(lambda: not list(tmp_path.glob("*.spool")), "the file is taken away")
    assert broker.show("living").done
    assert len(caplog.records) <= 3


def test_a_file_is_taken_only_when_its_process_is_dead(tmp_path: Path) -> None:
    file = SpoolFile.create(tmp_path / "a.spool")
    file.append([b"one", b"two"])
    assert SpoolFile.take(tmp_path / "a.spool") is None
    child = os.fork()
    if not child:
        os._exit(0 if SpoolFile.take(tmp_path / "a.spool") is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    file.close()
    taken = SpoolFile.take(tmp_path / "a.spool")
    assert taken is not None
    assert taken.readable
    first = taken.read(taken.sent)
    assert first is not None
    assert first[0] == b"one"
    taken.sent = first[1]
    assert taken.read(taken.sent) == (b"two", taken.size)
    assert taken.read(taken.size) is None
    taken.remove()
    assert list(tmp_path.iterdir()) == []
    assert len(HEADER) == 8


@pytest.mark.parametrize("seed", range(20))
def test_operations_that_are_held_back_come_later_in_their_own_order(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    file = SpoolFile.create(tmp_path / "a.spool")
    written: dict[str, list[int]] = {id: [] for id in "abcd"}
    sent: dict[str, list[int]] = {id: [] for id in "abcd"}
    places: dict[tuple[str, int], int] = {}

    def write(number: int) -> None:
        id = chance.choice("abcd")
        places[id, number] = file.size
        written[id].append(number)
        file.append([encode("k", Publish(id, [], attempt=number))])

    def send(record: Record) -> None:
        assert isinstance(record.content, Publish)
        sent[record.operation].append(record.content.attempt)
        unsent.done(record)

    unsent = Unsent(file)
    for number in range(1, 200):
        write(number)
        group: dict[str, Record] = {}
        while chance.random() < 0.7 and (record := unsent.take()) is not None:
            if record.operation in group:
                one = group.pop(record.operation)
                if chance.random() < 0.5:
                    unsent.hold(record.operation, one)
                    unsent.hold(record.operation, record)
                    continue
                send(one)
            group[record.operation] = record
        if chance.random() < 0.2:
            unsent.put_back()
            group = {}
        for record in group.values():
            if chance.random() < 0.3:
                unsent.hold(record.operation, record)
            else:
                send(record)
        unsent.save()
        waiting = [places[id, one] for id in written for one in written[id][len(sent[id]) :]]
        assert file.sent == min(waiting, default=file.size)
        if chance.random() < 0.1:
            unsent.try_again()
    unsent.try_again()
    while (record := unsent.take()) is not None:
        send(record)
    unsent.save()
    assert sent == written
    assert file.sent == file.size
    assert not unsent.held
