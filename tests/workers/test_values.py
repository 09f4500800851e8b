"""Users may return, log, count and name anything: the work continues as usual, and valid parts are reported."""

import asyncio
import io
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tqdm.auto import tqdm as plain_tqdm

from progress_broker.model.operation import OPERATION_ID, Status
from progress_broker.model.payloads import Progress
from progress_workers import (
    AsyncOperation,
    InvalidInput,
    LogHandler,
    NotFound,
    Operation,
    Pool,
    PoolWorker,
    current,
    tracked,
)
from progress_workers.bars.rich import Progress as RichProgress
from progress_workers.bars.tqdm import tqdm
from progress_workers.files import reading, writing
from progress_workers.values import fitted
from tests.workers.harness import Broker, assert_whole
from tests.workers.zoo import ZOO, Unreadable

Entry = Callable[[Any, Any], object]


def _entered(**options: Any) -> Entry:
    """An entry point that starts a child with an unusual option that is not an id."""
    (name,) = options

    def enter(op: Any, value: Any) -> None:
        with Operation.start(parent=op.id, settings=op._settings, **({"kind": "part"} | {name: value})) as child:
            child.advance()

    return enter


def _logged(op: Any, value: Any) -> None:
    if _explodes(value):
        return  # in `logging`, with any handler
    log = logging.Logger("mine")
    log.addHandler(LogHandler(operation=op))
    log.error("%s %s", "odd", value)


def _bar(op: Any, value: Any) -> None:
    with tqdm(total=3, disable=True) as bar:
        if not _explodes(value) and _is_fine(lambda: plain_tqdm(disable=True).set_postfix(odd=value)):
            bar.set_postfix(good=1, odd=value, refresh=False)
        bar.desc = value
        bar.unit = value
        bar.total = value
        bar.refresh()
        bar.n = value
        bar.refresh()


def _rich(op: Any, value: Any) -> None:
    with RichProgress(disable=True) as bars:
        bars.add_task(value, total=3)
        bars.add_task(value, total=3, weight=value)


def _written(op: Any, value: Any) -> None:
    class Sink:
        def write(self, data: object) -> Any:
            return value

    writing(Sink(), op.stage("file"), total=value).write(b"abc")  # type: ignore[arg-type]


def _stage(op: Any, value: Any) -> None:
    with op.stage("good", total=3) as stage:
        stage.update(current=value, total=value, in_flight=value, own=value, status=value, percent=value)
        stage.advance(value)
        stage.log(value, value)


def _pool(op: Any, value: Any) -> None:
    worker = PoolWorker(id=value, status=value, item=value, percent=value)
    op.update(workers=Pool(active=value, max=value, queue_depth=2, workers=[worker, {"id": 2, "percent": value}]))
    op.update(workers=value)


def _tracked(op: Any, value: Any) -> None:
    ran = []
    work = tracked(kind="run", id="run-{value}", title="{value}", owner="{value}")(lambda value: ran.append(1) or value)
    assert work(value) is value
    assert ran == [1]


ENTRIES: dict[str, Entry] = {
    "advance": lambda op, value: op.advance(value),
    "skip": lambda op, value: op.skip(value),
    "current": lambda op, value: op.update(current=value),
    "total": lambda op, value: op.update(total=value),
    "percent": lambda op, value: op.update(percent=value),
    "message": lambda op, value: op.update(message=value),
    "unit": lambda op, value: op.update(unit=value),
    "metric": lambda op, value: op.update(metrics={"odd": value}),
    "metrics": lambda op, value: op.update(metrics=value),
    "metric-name": lambda op, value: op.update(metrics={name: 1 for name in [value] if _is_fine(lambda: hash(value))}),
    "extra": lambda op, value: op.update(own=value),
    "known-extra": lambda op, value: op.update(rate=value, eta_ms=value, stages=value),
    "stages": lambda op, value: op.update(stages=[{"name": "good"}, {"name": value, "percent": value}, value]),
    "pool": _pool,
    "stage": _stage,
    "stage-name": lambda op, value: op.stage(value, value, value),
    "log": lambda op, value: op.log(value),
    "log-level": lambda op, value: op.log("levelled", value),
    "log-stage": lambda op, value: op.log("staged", stage=value),
    "publish": lambda op, value: op.publish("thumbnail", value),
    "publish-type": lambda op, value: op.publish(value, {"good": 1}),
    "on-cancel": lambda op, value: op.on_cancel(value)(),
    "log-handler": _logged,
    "tqdm": _bar,
    "rich": _rich,
    "reading": lambda op, value: reading(io.BytesIO(b"abc"), op.stage("file"), total=value).read(),
    "writing": _written,
    "tracked": _tracked,
    "kind": _entered(kind=None),
    "title": _entered(title=None),
    "owner": _entered(owner=None),
    "tag": lambda op, value: _entered(tags=None)(op, ["good", value]),
    "weight": _entered(weight=None),
    "start-total": _entered(total=None),
    "start-unit": _entered(unit=None),
    "worker": _entered(worker=None),
    "interval": _entered(interval_s=None),
}


def _explodes(value: Any) -> bool:
    """Return whether Python's `str` of a value never ends."""
    return type(value) is list and len(value) == 10


def _is_fine(call: Callable[[], object]) -> bool:
    """Return whether a call without the SDK raises nothing."""
    try:
        call()
    except BaseException:
        return False
    return True


@pytest.fixture
def op(broker: Broker) -> Iterator[Operation]:
    with Operation.start("zoo", id="op", total=100, settings=broker.settings) as op:
        yield op


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Add the value's name to an error."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"with the value {name}")
        raise


@pytest.mark.parametrize("how", ENTRIES)
def test_no_value_fails_the_work_or_takes_what_was_good(
    how: str, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    with Operation.start("zoo", id="op", settings=broker.settings) as op:
        op.update(message="good", metrics={"good": 1})
        op.log("before")
        for name, make in ZOO.items():
            op.update(current=50, total=100)
            with _about(name):
                ENTRIES[how](op, make())
                assert 0 <= op._reporter.progress.gauge.current <= 1e100
        op.update(current=50, total=100)
        op.log("after")
        op.advance(1)
        op.update(metrics={"better": 2})
    shown = broker.show("op")
    assert shown.status is Status.SUCCEEDED
    events = broker.events("op")
    assert_whole(events)
    logged = broker.logged("op")
    assert (logged[0], logged[-1]) == ("before", "after")
    warned = [line["message"] for line in broker.data("op", "log") if line["level"] == "warning"]
    assert len(warned) == len(set(warned)), "each warning comes once"
    once = [message for message in caplog.messages if "was created" not in message and "already" not in message]
    if how != "tracked":  # every call of a tracked function is an operation
        assert len(once) == len(set(once)), "in both logs"
    assert set(warned) <= {message.removeprefix("operation op: ") for message in caplog.messages} | set(caplog.messages)
    for told in broker.data("op", "progress"):
        Progress.model_validate(told)
    last = broker.data("op", "progress")[-1]
    assert (last["current"], last["total"]) == (51, 100)
    assert last["metrics"] | {"good": 1, "better": 2} == last["metrics"]
    for key in broker.keys("*:op:*:events"):
        each = key.decode().split(":op:")[1].removesuffix(":events")
        assert broker.show(each).status is Status.SUCCEEDED, "none is left pending"


@pytest.mark.parametrize("shell", [Operation, AsyncOperation])
def test_every_result_ends_its_operation_as_succeeded(
    shell: Any, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    def succeed(name: str, value: Any) -> None:
        with Operation.start("zoo", id=name, settings=broker.settings) as op:
            op.succeed(value)

    async def succeed_later(name: str, value: Any) -> None:
        async with AsyncOperation.start("zoo", id=name, settings=broker.settings) as op:
            op.succeed(value)

    for name, make in ZOO.items():
        id = name.replace(",", "")
        with _about(name):
            succeed(id, make()) if shell is Operation else asyncio.run(succeed_later(id, make()))
            shown = broker.show(id)
            assert (shown.status, shown.error) == (Status.SUCCEEDED, None)
            assert [message for message in broker.logged(id) if f"operation {id}: {message}" not in caplog.text] == []
    results = {name: broker.show(name.replace(",", "")).result for name in ZOO}
    assert (results["list"], results["dict"], results["number"]) == ([1, "a", None, {"b": [2.5]}], {"a": 1}, 3)
    assert results == results | RESULTS
    for name in ("long", "huge", "numpy-huge", "laughs", "range"):
        (said,) = broker.logged(name)
        assert said.startswith("the result was left out, because the value exceeds the limit of "), name


RESULTS = {
    "numpy-int": 3,
    "numpy-float": 1.5,
    "numpy-bool": True,
    "numpy-array": [[0, 1, 2], [3, 4, 5]],
    "numpy-objects": ["<Plain>", "<1 byte: ff>"],
    "nan": "NaN",
    "inf": "Infinity",
    "66-bits": str(1 << 65),
    "decimal": "1.5",
    "bytes": "<1 byte: ff>",
    "utf8-bytes": "é",
    "surrogates": "caf\ufffd.txt",
    "surrogate-pair": "😀",
    "odd-keys": {
        "('a', 1)": 1,
        "2": 2,
        "2 (2)": 3,
        "null": 4,
        "\ufffd": 5,
        "\ufffd (2)": 6,
        "<class 'tests.workers.zoo.Plain'>": 7,
    },
    "dataclass": {"id": 7, "odd": "<Plain>"},
    "model": {"count": 3, "secret": "**********", "raw": "<1 byte: ff>"},
    "datetime": "2026-11-29T00:00:00Z",
    "enum": "red",
    "exception": "ValueError: no",
    "object": "<Plain>",
    "generator": "<generator>",
    "cycle": [1, {"again": "<list that contains itself>"}],
    "unreadable": "<Unreadable: str() failed (RuntimeError)>",
    "bad-dict": {"a": 1},
    "bad-str": "x",
    "bad-int": 5,
    "lying-length": [1, 2],
    "long": None,
    "huge": None,
}


@pytest.mark.parametrize("name", ZOO)
def test_whatever_an_exception_holds_it_is_the_one_that_is_raised(name: str, broker: Broker) -> None:
    class OddError(Exception):
        error_type = ZOO[name]()
        reason = ZOO[name]()

        def __str__(self) -> str:
            return ZOO[name]()  # type: ignore[no-any-return]

    with pytest.raises(OddError), Operation.start("zoo", id="op", settings=broker.settings), current().stage("s"):
        raise OddError(ZOO[name]())
    shown = broker.show("op")
    assert shown.status is Status.FAILED
    assert shown.error is not None
    assert isinstance(shown.error["message"], str)


@pytest.mark.parametrize("name", ZOO)
def test_what_is_tracked_is_iterated_as_without_us(name: str, op: Operation) -> None:
    def taken(made: Callable[[Any], Any]) -> Any:
        try:
            return [item for item, _ in zip(made(ZOO[name]()), range(5), strict=False)]
        except BaseException as error:
            return type(error)

    with _about(name):
        expected = taken(iter)
        for track in (op.track, op.stage("s").track):
            assert _kinds(taken(track)) == _kinds(expected)


def test_numbers_that_are_none_leave_the_count_as_it_was(broker: Broker) -> None:
    with Operation.start("zoo", id="op", total=100, settings=broker.settings) as op:
        op.advance(50)
        assert op.flush()
        for bad in (math.nan, math.inf, -math.inf, "ten", None, b"1", [], 1j):
            op.advance(bad)  # type: ignore[arg-type]
            op.update(current=bad, total=bad, percent=bad)  # type: ignore[arg-type]
        op.advance(-1000)
        op.advance(ZOO["numpy-int"]())
        op.advance(ZOO["decimal"]())
    last = broker.data("op", "progress")[-1]
    assert (last["current"], last["total"], last["percent"]) == (4.5, 100, 50.0)
    warned = broker.logged("op")
    assert warned[0] == "the value nan of advance was ignored; expected a finite number, 0 or greater"
    names = ("advance", "current", "percent", "total")
    assert sorted(name for line in warned for name in names if f" {name} " in line) == list(names)


def test_a_bad_option_is_found_before_anything_is_created(broker: Broker) -> None:
    for options in ({"id": "a b"}, {"parent": "a b"}, {"lease_s": -1}, {"tags": "eu"}, {"id": "\udce9"}):
        with pytest.raises(InvalidInput):
            Operation.start("zoo", settings=broker.settings, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unknown option 'colour'"):
        Operation.start("zoo", settings=broker.settings, colour="red")  # type: ignore[call-arg]
    with pytest.raises(RuntimeError):
        Operation.start("zoo", settings=broker.settings, new_attempt=Unreadable())  # type: ignore[arg-type]
    for id in ("a b", "\udce9", 5):
        with pytest.raises(NotFound):
            Operation.attach(id, settings=broker.settings)  # type: ignore[arg-type]
    assert broker.keys("*:op:*") == []


def test_what_an_operation_is_called_becomes_readable(broker: Broker) -> None:
    odd = os.fsdecode(b"caf\xe9\n")
    owner = "x" * 200
    options: Any = {"title": odd * 1000, "owner": owner, "tags": [odd, "", *map(str, range(20))], "worker": odd}
    with Operation.start(odd, id="op", total="ten", weight=0, interval_s="fast", settings=broker.settings, **options):
        pass
    shown = broker.show("op")
    assert (shown.kind, shown.worker) == ("caf\ufffd ", "caf\ufffd ")
    assert shown.title is not None
    assert (len(shown.title), shown.title[:5], shown.title[-1]) == (512, "caf\ufffd\n", "…")
    assert shown.owner == fitted(owner, owner)
    assert shown.tags == ["caf\ufffd ", *map(str, range(14))]
    assert shown.weight == 1
    for subject, line in zip(("tags", "weight", "total", "interval_s"), broker.logged("op"), strict=True):
        assert subject in line


def test_of_too_much_the_largest_is_left_out(broker: Broker) -> None:
    with Operation.start("zoo", id="op", settings=broker.settings) as op:
        op.update(metrics={f"m{n}": n for n in range(100)} | {"large": "x" * 16_000, "larger": "x" * 16_100}, own=1)
    last = broker.data("op", "progress")[-1]
    assert (last["metrics"], last["own"]) == ({f"m{n}": n for n in range(100)}, 1)
    assert broker.logged("op") == [
        "the progress exceeds PROGRESS_MAX_PROGRESS_BYTES; these fields were left out: larger, large"
    ]


@pytest.mark.parametrize("code", [None, 0, False])
def test_an_exit_with_status_0_is_a_success(code: Any, run: Any, broker: Broker) -> None:
    def body(op: Any) -> None:
        with op.stage("s"):
            sys.exit(code)

    with pytest.raises(SystemExit):
        run(body, "zoo", id="op", settings=broker.settings)
    assert broker.show("op").status is Status.SUCCEEDED
    assert broker.data("op", "progress")[-1]["stages"][0]["status"] == "succeeded"


@pytest.mark.parametrize(
    ("code", "message"),
    [(3, "it exited with status 3"), (True, "it exited with status 1"), ("no disk", "no disk"), (0.0, "0.0")],
)
def test_any_other_exit_is_a_failure(code: Any, message: str, broker: Broker) -> None:
    with pytest.raises(SystemExit), Operation.start("zoo", id="op", settings=broker.settings):
        sys.exit(code)
    assert broker.show("op").error == {"type": "SystemExit", "message": message}


def test_what_ends_the_work_from_outside_is_never_held_back(op: Operation) -> None:
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind):
            op.log(Unreadable(kind))  # type: ignore[arg-type]


def test_ids_from_arguments_are_valid_and_stay_the_same(broker: Broker) -> None:
    work = tracked(id="x-{path}", settings=broker.settings)(lambda path: path)
    for path, id in (("a b/c", "x-a~20.b~2f.c"), (os.fsdecode(b"\xe9"), "x-~dce9."), ("plain", "x-plain")):
        assert work(path) == path
        assert re.fullmatch(OPERATION_ID, id)
        assert broker.show(id).status is Status.SUCCEEDED
    assert work("x" * 1000) == "x" * 1000
    assert len(broker.keys("*:op:*:events")) == 4


def test_a_tracked_function_runs_whatever_is_wrong_with_its_options(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    assert tracked(kind="run", parent="not an id", settings=broker.settings)(lambda: 5)() == 5
    assert "run runs without being reported: parent: " in caplog.text
    with pytest.raises(TypeError, match="unknown option 'colour'"):
        tracked(colour="red")(lambda: 5)  # type: ignore[call-overload]


def _kinds(taken: Any) -> Any:
    return [type(item) for item in taken] if isinstance(taken, list) else taken
