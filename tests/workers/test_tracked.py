import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from progress_workers import AsyncOperation, Cancelled, Operation, StorageUnavailable, current
from progress_workers.testing import Recording
from progress_workers.tracked import tracked
from tests.servers import free_port
from tests.workers.harness import Broker


@tracked
def add(left: int, right: int = 2) -> int:
    """Add."""
    current().log(f"adding {left} and {right}")
    return left + right


@tracked
async def add_later(left: int, right: int = 2) -> int:
    """Add."""
    await asyncio.sleep(0)
    current().log(f"adding {left} and {right}")
    return left + right


@tracked(kind="import", title="Import {path}", id="import-{path}", owner="{owner}", unit="rows", total=3, tags=["eu"])
def load(path: str, *, owner: str = "alice") -> int:
    for _ in current().track("abc"):
        pass
    return 3


def _add(*args: int, **kwargs: int) -> int:
    return add(*args, **kwargs)


def _add_later(*args: int, **kwargs: int) -> int:
    return asyncio.run(add_later(*args, **kwargs))


both = pytest.mark.parametrize(("call", "function"), [(_add, add), (_add_later, add_later)], ids=["sync", "async"])


@both
def test_a_call_is_an_operation(recorded: Recording, call: Any, function: Any) -> None:
    assert call(1, right=3) == 4
    assert recorded.outcome is not None
    assert (recorded.outcome.status, recorded.outcome.result) == ("succeeded", 4)
    assert [line.message for line in recorded.logs] == ["adding 1 and 3"]
    assert recorded.operation.snapshot.kind == function.__name__


@both
def test_a_tracked_function_looks_as_it_did(call: Any, function: Any) -> None:
    assert function.__name__ in ("add", "add_later")
    assert function.__doc__ == "Add."
    assert str(inspect.signature(function)) == "(left: int, right: int = 2) -> int"
    assert inspect.iscoroutinefunction(function) == (function is add_later)


def test_options_may_name_arguments(recorded: Recording) -> None:
    assert load("a.csv") == 3
    shown = recorded.operation.snapshot
    assert (shown.id, shown.kind, shown.title) == ("import-a.csv", "import", "Import a.csv")
    assert (shown.owner, shown.tags) == ("alice", ["eu"])
    assert recorded.progress["unit"] == "rows"


def test_each_call_is_another_operation(recorded: Recording) -> None:
    add(1)
    add(2)
    assert [operation.outcome.result for operation in recorded.of_kind("add") if operation.outcome] == [3, 4]


@pytest.mark.parametrize("tracking", [tracked(kind="run", title="{0}"), tracked(kind="run", title="{missing.name}")])
def test_a_name_that_is_no_parameter_is_rejected_when_decorating(tracking: Any) -> None:
    with pytest.raises(ValueError, match="has no parameter"):
        tracking(lambda path: path)


def test_a_long_title_is_cut(recorded: Recording) -> None:
    tracked(title="{text}")(lambda text: None)("x" * 1000)
    assert len(recorded.operation.snapshot.title or "") == 512


def test_an_id_is_made_valid(recorded: Recording) -> None:
    assert load("with spaces and / more") == 3
    assert recorded.operation.id == "import-with~20.spaces~20.and~20.~2f.~20.more"


@both
def test_a_failure_is_raised_on(recorded: Recording, call: Any, function: Any) -> None:
    with pytest.raises(TypeError):
        call("one")
    assert recorded.outcome is not None
    assert recorded.outcome.status == "failed"


@both
def test_a_call_within_an_operation_is_its_child(recorded: Recording, call: Any, function: Any) -> None:
    with Operation.start("outer") as outer:
        call(1)
        assert current() is outer
    (inner,) = recorded.of_kind(function.__name__)
    assert inner.snapshot.parent == outer.id


def test_tracked_calls_nest(recorded: Recording) -> None:
    @tracked(kind="outer")
    async def outer() -> int:
        return sum(await asyncio.gather(add_later(1), add_later(2))) + await asyncio.to_thread(add, 3)

    assert asyncio.run(outer()) == 12
    (parent,) = recorded.of_kind("outer")
    children = recorded.of_kind("add_later") + recorded.of_kind("add")
    assert [child.snapshot.parent for child in children] == [parent.id] * 3


def test_a_parent_that_is_given_counts(recorded: Recording) -> None:
    with Operation.start("outer"):
        tracked(kind="inner", parent="another")(lambda: None)()
    assert recorded.of_kind("inner")[0].snapshot.parent == "another"


def test_within_a_cancelled_operation_no_call_begins(recorded: Recording) -> None:
    with Operation.start("outer"):
        recorded.cancel()
        with pytest.raises(Cancelled):
            add(1)
    assert recorded.of_kind("add") == []


@pytest.mark.parametrize("result", [{"a": [1, None, "b"]}, [1.5], "text", None, True])
def test_a_result_that_is_json_is_kept(recorded: Recording, result: Any) -> None:
    assert tracked(kind="run")(lambda: result)() is result
    assert recorded.outcome is not None
    assert recorded.outcome.result == result


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (object(), "<object>"),
        ({1: object()}, {"1": "<object>"}),
        ("x" * 100_000, None),
        (1 << 80, str(1 << 80)),
        (b"\xff", "<1 byte: ff>"),
    ],
)
def test_a_result_that_is_no_json_is_shown_as_text_or_left_out(recorded: Recording, result: Any, told: Any) -> None:
    assert tracked(kind="run")(lambda: result)() is result
    assert recorded.outcome is not None
    assert (recorded.outcome.status, recorded.outcome.result) == ("succeeded", told)


def test_a_result_is_not_used_up(recorded: Recording) -> None:
    result = tracked(kind="run")(lambda: iter([1, 2, 3]))()
    assert list(result) == [1, 2, 3]


def test_what_was_said_of_the_end_counts_first(recorded: Recording) -> None:
    @tracked
    def work() -> str:
        operation = current()
        assert isinstance(operation, Operation)
        operation.succeed({"rows": 3})
        return "for the caller"

    assert work() == "for the caller"
    assert recorded.outcome is not None
    assert recorded.outcome.result == {"rows": 3}


def test_methods_are_tracked_by_their_qualified_names(recorded: Recording) -> None:
    class Importer:
        @tracked(title="{self.name}")
        def run(self) -> str:
            return self.name

        @staticmethod
        @tracked
        def help() -> str:
            return "help"

        name = "ada"

    assert (Importer().run(), Importer.help()) == ("ada", "help")
    kinds = [operation.snapshot.kind for operation in recorded.operations.values()]
    assert [kind.rpartition("<locals>.")[2] for kind in kinds] == ["Importer.run", "Importer.help"]
    assert recorded.operation.snapshot.title == "ada"


def _rows() -> Iterator[int]:
    yield 1


async def _rows_later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [_rows, _rows_later])
def test_generator_functions_are_rejected_with_the_way_out(function: Any) -> None:
    with pytest.raises(TypeError, match="start an operation around such a loop"):
        tracked(function)


def test_an_async_call_is_cancelled_with_its_operation(recorded: Recording) -> None:
    @tracked(kind="wait")
    async def wait() -> None:
        current().advance()
        await asyncio.Event().wait()

    recorded.cancel("enough", when=lambda operation: operation.progress["current"] == 1)
    with pytest.raises(Cancelled, match="enough"):
        asyncio.run(wait())
    assert recorded.outcome is not None
    assert recorded.outcome.status == "cancelled"


@both
def test_without_redis_the_function_runs_and_the_log_says_so_once(
    call: Any, function: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("progress_workers.transport.link.FLUSH_S", 0.1)
    monkeypatch.setenv("PROGRESS_REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.WARNING):
        assert [call(1), call(1)] == [3, 3]
    (said,) = caplog.messages
    assert said.startswith("progress could not be sent to Redis, so it is buffered and sent again later")
    with pytest.raises(StorageUnavailable):
        tracked(required=True)(lambda: 1)()


def test_it_is_stored_in_redis(broker: Broker) -> None:
    assert tracked(kind="run", id="r-1", settings=broker.settings)(lambda: {"ok": True})() == {"ok": True}
    assert broker.show("r-1").result == {"ok": True}


def test_the_settings_are_the_outer_operation_s(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROGRESS_REDIS_URL", raising=False)

    async def both() -> None:
        async with AsyncOperation.start("outer", id="o-1", settings=broker.settings):
            await tracked(kind="inner", id="i-1")(add_later)(1)

    asyncio.run(both())
    assert broker.show("i-1").parent == "o-1"


def _passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """The result of an ordinary decorator."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


async def _work() -> str:
    current().log("before")
    await asyncio.sleep(0)
    current().log("after")
    return "done"


class _Worker:
    async def __call__(self) -> str:
        return await _work()


@pytest.mark.parametrize("function", [_passed_on(_work), _Worker(), functools.partial(_work), lambda: _work()])
def test_a_call_that_is_to_be_awaited_ends_when_it_was(recorded: Recording, function: Any) -> None:
    async def work() -> None:
        begun = tracked(kind="run")(function)()
        assert current().id == ""
        assert recorded.operations == {} or recorded.outcome is None
        assert await begun == "done"

    asyncio.run(work())
    assert [line.message for line in recorded.logs] == ["before", "after"]
    assert recorded.outcome is not None
    assert (recorded.outcome.status, recorded.outcome.result) == ("succeeded", "done")


def test_a_plain_function_around_an_async_one_stays_plain(recorded: Recording) -> None:
    @tracked(kind="run")
    @functools.wraps(_work)
    def work() -> str:
        return asyncio.run(_work())

    assert work() == "done"
    assert recorded.outcome is not None
    assert recorded.outcome.result == "done"


@pytest.mark.parametrize("function", [_passed_on(_rows), _passed_on(_rows_later), lambda: (row for row in "abc")])
def test_the_log_says_that_work_comes_after_the_call(recorded: Recording, function: Any) -> None:
    assert type(tracked(kind="run")(function)()) is type(function())
    assert recorded.outcome is not None
    assert recorded.outcome.status == "succeeded"
    assert "its work continues after the call" in recorded.logs[0].message


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        ("import", r"by keyword only: @tracked\(kind='import'\)"),
        (classmethod(lambda cls: None), "below @classmethod"),
        (staticmethod(lambda: None), "below @staticmethod"),
        (_Worker, "is a class"),
        (3, "by keyword only"),
    ],
)
def test_what_is_no_function_is_rejected_with_the_way_out(function: Any, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        tracked(function)


class _Silent:
    def __str__(self) -> str:
        raise RuntimeError("no name")


@pytest.mark.parametrize("title", ["{n.foo}", "{n:d}", "{n}", "{n[0]}"])
def test_what_can_not_be_filled_in_stays_as_it_is(
    recorded: Recording, title: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert tracked(kind="run", title=title, id="run-{n.foo}")(lambda n: "done")(_Silent()) == "done"
    assert recorded.operation.snapshot.title == title
    assert "can't be filled in" in caplog.text


def test_wrong_arguments_are_the_functions_to_reject(recorded: Recording) -> None:
    call: Any = load
    with pytest.raises(TypeError, match="unexpected keyword argument 'format'"):
        call("a.csv", format="csv")
    assert recorded.outcome is not None
    assert recorded.outcome.status == "failed"


def _again(id: str) -> str:
    return tracked(kind="run", id=id)(lambda: "done")()


def _again_later(id: str) -> str:
    async def work() -> str:
        return "done"

    return asyncio.run(_to_await(tracked(kind="run", id=id)(work)))


async def _to_await(function: Callable[[], Any]) -> str:
    found: str = await function()
    return found


again = pytest.mark.parametrize("again", [_again, _again_later], ids=["sync", "async"])


@again
@pytest.mark.parametrize("kind", ["run", "another"], ids=["ended", "other words"])
def test_where_the_id_was_used_the_function_runs_unreported(
    recorded: Recording, again: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Operation.start(kind, id="used"):
        pass
    assert again("used") == "done"
    assert recorded.operation.snapshot.result is None
    assert "runs without being reported" in caplog.text
    assert again("new") == "done"
    assert recorded.operations["new"].outcome is not None


@again
def test_where_the_operation_was_cancelled_before_the_function_does_not_run(recorded: Recording, again: Any) -> None:
    Operation.start("run", id="used").fail(Cancelled("used"))
    with pytest.raises(Cancelled, match="before this call began"):
        again("used")
