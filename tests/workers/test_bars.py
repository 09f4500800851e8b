"""Bars are drawn to a file, and every step is drawn (`mininterval=0`), so every step is reported."""

import asyncio
import copy
import gc
import io
import sys
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import tqdm.auto
import tqdm.contrib.concurrent

from progress_workers import Operation
from progress_workers.bars.tqdm import tqdm as bar
from progress_workers.bars.tqdm import trange
from progress_workers.testing import Recording
from tests.workers.harness import Broker, assert_whole, finished, python


def quiet(*args: Any, **kwargs: Any) -> Any:
    return bar(*args, **{"file": io.StringIO(), "mininterval": 0, "miniters": 1, **kwargs})


drawn = pytest.mark.parametrize("disable", [False, True], ids=["drawn", "disabled"])


def counts(recorded: Recording) -> list[tuple[float | None, float | None]]:
    return [(progress["current"], progress["total"]) for progress in recorded.progresses]


@drawn
def test_a_loop_is_the_operation_s_progress(recorded: Recording, op: Operation, disable: bool) -> None:
    assert list(quiet("abcd", desc="reading", unit="rows", disable=disable)) == list("abcd")
    last = recorded.progress
    assert (last["current"], last["total"], last["percent"]) == (4, 4, 100)
    assert (last["message"], last["unit"]) == ("reading", "rows")


def test_each_draw_is_reported(recorded: Recording, op: Operation) -> None:
    for _ in quiet(range(3)):
        pass
    assert [current for current, total in counts(recorded) if total == 3] == [0, 1, 2, 3]


@drawn
def test_a_bar_may_be_moved_by_hand(recorded: Recording, op: Operation, disable: bool) -> None:
    with quiet(total=10, initial=4, desc="one", disable=disable) as some:
        some.update(2)
        some.set_description("two")
        assert recorded.progress["message"] == "two"
        some.set_description_str("three")
        some.update(3.5)
        assert some.n == 9.5
    assert (recorded.progress["current"], recorded.progress["total"]) == (9.5, 10)
    assert recorded.progress["message"] == "three"


def test_where_a_bar_begins_took_no_work(recorded: Recording, op: Operation) -> None:
    with quiet(total=1000, initial=999, disable=False) as some:
        assert recorded.progress["current"] == 999
        assert op._reporter.progress.gauge.skipped == 999
        some.update()
    assert op._reporter.progress.gauge.skipped == 999


@drawn
def test_a_bar_without_a_total_only_counts(recorded: Recording, op: Operation, disable: bool) -> None:
    assert len(list(quiet(iter(range(5)), disable=disable))) == 5
    assert (recorded.progress["current"], recorded.progress["total"]) == (5, None)
    assert recorded.progress["percent"] is None


@drawn
def test_a_total_may_come_to_be_known_and_change(recorded: Recording, op: Operation, disable: bool) -> None:
    with quiet(disable=disable) as some:
        for total in (4, 8, 2.5):
            some.total = total
            some.refresh()
            assert recorded.progress["total"] == total
        some.reset(total=20)
        assert recorded.progress["total"] == 20


@drawn
def test_a_reset_counts_anew_but_no_percentage_goes_back(recorded: Recording, op: Operation, disable: bool) -> None:
    with quiet(total=4, disable=disable) as some:
        some.update(2)
        some.refresh()
        some.reset()
        assert recorded.progress["current"] == 0
        some.update(1)
    assert (recorded.progress["current"], recorded.progress["percent"]) == (1, 50)


def test_a_numeric_scale_is_counted_in(recorded: Recording, op: Operation) -> None:
    with quiet(total=4, unit="B", unit_scale=1024) as some:
        some.update(2)
    assert (recorded.progress["current"], recorded.progress["total"]) == (2048, 4096)


@drawn
def test_a_postfix_is_metrics(recorded: Recording, op: Operation, disable: bool) -> None:
    class Tensor:
        def __float__(self) -> float:
            return 0.25

    with quiet(total=4, disable=disable, postfix={"first": 1}) as some:
        some.set_postfix({"loss": Tensor(), "name": "ada"}, rows=3)
    metrics = recorded.progress["metrics"]
    assert {"loss": 0.25, "name": "ada", "rows": 3}.items() <= metrics.items()
    assert ("first" in metrics) is not disable  # tqdm drops it too


@drawn
def test_of_nested_bars_the_outermost_counts_and_the_others_are_told(
    recorded: Recording, op: Operation, disable: bool
) -> None:
    messages = []
    for epoch in quiet(range(2), desc="epochs", disable=disable):
        with quiet(total=4, desc=f"train {epoch}", leave=False, disable=disable) as inner:
            inner.update(1)
            inner.refresh()
            messages.append(recorded.progress["message"])
        assert recorded.progress["message"] == "epochs"
    assert messages == ["epochs > train 0 25 %", "epochs > train 1 25 %"]
    assert (recorded.progress["current"], recorded.progress["total"]) == (2, 2)
    assert max(total for _, total in counts(recorded) if total) == 2
    assert "stages" not in recorded.progress


def test_bars_one_after_the_other_add_up(recorded: Recording, op: Operation) -> None:
    list(quiet(range(3), desc="one"))
    for _ in quiet(range(5), desc="two"):
        break
    list(quiet(iter(range(2)), desc="three"))
    assert (recorded.progress["current"], recorded.progress["total"]) == (5, None)
    list(quiet(range(10)))
    assert (recorded.progress["current"], recorded.progress["total"]) == (15, 20)
    for progress in recorded.progresses:
        if progress["total"]:
            assert progress["percent"] == pytest.approx(100 * progress["current"] / progress["total"], abs=0.01)


@drawn
@pytest.mark.parametrize("order", ["in turn", "one after the other", "last first"])
def test_parallel_bars_add_up(recorded: Recording, op: Operation, disable: bool, order: str) -> None:
    bars = [quiet(total=10, position=at, desc=f"part {at}", disable=disable) for at in range(3)]
    steps = {
        "in turn": [0, 1, 2] * 10,
        "one after the other": [0] * 10 + [1] * 10 + [2] * 10,
        "last first": [2] * 5 + [0] * 10 + [1] * 10 + [2] * 5,
    }[order]
    for done, at in enumerate(steps):
        if done == 25 and order == "one after the other":
            bars[0].close()
        bars[at].update()
        bars[at].refresh()
        if done == 10:
            assert recorded.progress["message"].count(",") == 2
    assert (recorded.progress["current"], recorded.progress["total"], recorded.progress["percent"]) == (30, 30, 100)
    ended = [told["percent"] for told in recorded.progresses if told["percent"] is not None].index(100)
    assert recorded.progresses[-1]["current"] == 30
    assert all(told["current"] < 30 for told in recorded.progresses[:ended])
    for each in bars:
        each.close()
    list(quiet(range(5), disable=disable))
    assert (recorded.progress["current"], recorded.progress["total"]) == (35, 35)


def test_a_bar_of_all_files_and_one_of_each_file_are_nested(recorded: Recording, op: Operation) -> None:
    with quiet(total=4, desc="files") as files, quiet(total=100, desc="lines", mininterval=60) as lines:
        for _ in range(2):
            lines.reset()
            for _ in range(100):
                lines.update()
            files.update()
        with quiet(total=7, desc="c") as c, quiet(total=8, desc="d") as d:
            c.update(7)
            d.update(8)
        files.update()
        files.update()
        assert (recorded.progress["current"], recorded.progress["total"]) == (4, 4)
    assert max(total for _, total in counts(recorded) if total) == 4


def test_a_total_that_was_given_stays(recorded: Recording) -> None:
    with Operation.start("import", total=20):
        list(quiet(range(5)))
        list(quiet(range(5)))
    assert (recorded.progress["current"], recorded.progress["total"]) == (10, 20)


def test_in_a_stage_s_block_a_bar_is_the_stage_s_progress(recorded: Recording, op: Operation) -> None:
    stages = [op.stage(name) for name in ("read", "write")]
    for stage in stages:
        with stage:
            list(quiet(range(4), desc=stage.name))
            assert recorded.progress["message"] == stage.name
    assert [(stage["current"], stage["total"], stage["percent"]) for stage in recorded.progress["stages"]] == [
        (4, 4, 100)
    ] * 2
    assert recorded.progress["percent"] == 100
    assert recorded.progress["total"] is None


def test_a_bar_that_is_dropped_is_none_any_more(recorded: Recording, op: Operation) -> None:
    dropped = quiet(total=4, desc="dropped")
    dropped.update(1)
    del dropped
    gc.collect()
    list(quiet(range(4)))
    assert (recorded.progress["current"], recorded.progress["total"]) == (5, 8)


def test_a_loop_that_is_left_by_an_exception_stays_where_it_was(recorded: Recording) -> None:
    def work() -> None:
        with Operation.start("import"):
            for number in quiet(range(4), disable=True):
                if number == 2:
                    raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        work()
    assert (recorded.progress["current"], recorded.progress["total"]) == (2, 4)


@drawn
def test_asyncio_s_bars_report(recorded: Recording, op: Operation, disable: bool) -> None:
    async def rows() -> AsyncIterator[int]:
        for number in range(3):
            yield number

    async def work() -> list[Any]:
        found: list[Any] = [number async for number in quiet(rows(), total=3, disable=disable)]
        return found + await bar.gather(
            *(asyncio.sleep(0, number) for number in (3, 4)), file=io.StringIO(), disable=disable
        )

    assert asyncio.run(work()) == [0, 1, 2, 3, 4]
    assert (recorded.progress["current"], recorded.progress["total"]) == (5, 5)


def test_tqdm_s_own_pools_take_the_class(recorded: Recording, op: Operation) -> None:
    doubled = tqdm.contrib.concurrent.thread_map(
        lambda number: 2 * number, range(5), tqdm_class=bar, file=io.StringIO(), max_workers=2
    )
    assert doubled == [0, 2, 4, 6, 8]
    assert (recorded.progress["current"], recorded.progress["total"]) == (5, 5)


def test_a_bar_may_be_moved_by_other_threads(recorded: Recording, op: Operation) -> None:
    with quiet(total=400) as some:
        lock = threading.Lock()

        def work() -> None:
            for _ in range(100):
                with lock:
                    some.update()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (recorded.progress["current"], recorded.progress["total"]) == (400, 400)


def test_trange_is_a_bar_over_a_range(recorded: Recording, op: Operation) -> None:
    assert list(trange(2, 8, 2, file=io.StringIO())) == [2, 4, 6]
    assert (recorded.progress["current"], recorded.progress["total"]) == (3, 3)


def test_a_class_of_one_s_own_keeps_what_it_overrides(recorded: Recording, op: Operation) -> None:
    moved = []

    class Mine(bar[Any]):
        def update(self, n: float | None = 1) -> bool | None:
            moved.append(n)
            return super().update(n)

    for disable in (False, True):
        with Mine(total=3, file=io.StringIO(), disable=disable) as mine:
            mine.update(3)
        assert isinstance(mine, Mine)
    assert moved == [3, 3]
    assert (recorded.progress["current"], recorded.progress["total"]) == (6, 6)


def test_what_can_not_be_a_bar_fails_as_with_tqdm(recorded: Recording, op: Operation) -> None:
    with pytest.raises(KeyError, match="Unknown argument"):
        bar(range(3), file=io.StringIO(), colur="red")
    list(quiet(range(3)))
    assert (recorded.progress["current"], recorded.progress["total"]) == (3, 3)


def _drawing(cls: Callable[..., Any]) -> str:
    """Return everything that is drawn, without times."""
    file = io.StringIO()
    make = partial(cls, file=file, mininterval=0, bar_format="{desc}|{bar:10}|{n_fmt}/{total_fmt}{unit}{postfix}")
    for _ in make("abc", desc="loop", unit="row"):
        pass
    with make(total=10, initial=3, leave=False, ascii=True) as some:
        some.update(2)
        some.set_description("by hand")
        some.set_postfix(loss=0.5)
        tqdm.auto.tqdm.write("between", file=file)
        some.reset(total=20)
        some.update(20)
    for _ in make(range(2), position=1):
        for _ in make(range(2), position=2):
            pass
    return file.getvalue()


def test_what_is_drawn_is_what_tqdm_draws(recorded: Recording) -> None:
    plain = _drawing(tqdm.auto.tqdm)
    assert "loop" in plain
    assert _drawing(bar) == plain
    with Operation.start("import"):
        assert _drawing(bar) == plain


def test_outside_an_operation_it_is_plain_tqdm() -> None:
    """Only `__new__` is overridden there, so the bar is as fast as tqdm's."""
    some = bar(total=3, file=io.StringIO())
    some.close()
    assert type(some) is bar
    assert isinstance(some, tqdm.auto.tqdm)
    ours = {name for cls in bar.__mro__[: bar.__mro__.index(tqdm.auto.tqdm)] for name in vars(cls)}
    assert {name for name in ours if callable(getattr(bar, name, None))} - {"__class__"} == {
        "__new__",
        "__class_getitem__",
    }


def test_in_an_operation_an_item_of_a_loop_costs_no_more_calls_than_of_tqdm_s(
    recorded: Recording, op: Operation
) -> None:
    items = 100_000

    def calls(cls: Callable[..., Any]) -> int:
        counted = 0

        def count(_: object, event: str, __: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        loop = cls(range(items), file=io.StringIO(), mininterval=3600)
        sys.setprofile(count)
        try:
            for _ in loop:
                pass
        finally:
            sys.setprofile(None)
        return counted

    assert items <= calls(bar) < calls(tqdm.auto.tqdm) + items / 10  # plus the calls at the end and at closing


def test_a_script_s_bars_reach_redis(broker: Broker, storage: str) -> None:
    code = """
        from progress_workers import Operation
        from progress_workers.bars.rich import track
        from progress_workers.bars.tqdm import tqdm

        with Operation.start("import", id="bars") as op:
            with op.stage("read") as stage:
                for _ in tqdm(range(1000), desc="reading", disable=None):
                    pass
            with op.stage("write"):
                for _ in track(range(500), "writing"):
                    pass
        """
    assert "Working" not in finished(python(storage, code))
    assert_whole(broker.events("bars"))
    shown = broker.show("bars")
    assert shown.status == "succeeded"
    assert shown.progress is not None
    assert (shown.progress["percent"], shown.progress["message"]) == (100, "writing")
    assert [(stage["current"], stage["total"]) for stage in shown.progress["stages"]] == [(1000, 1000), (500, 500)]


@drawn
def test_a_copy_of_a_bar_reports_nothing(recorded: Recording, op: Operation, disable: bool) -> None:
    with quiet(total=4, disable=disable) as some:
        some.update(1)
        other = copy.copy(some)
        other.update(2)
        other.set_postfix(loss=1)
        del other
        gc.collect()
        some.update(2)
    assert (recorded.progress["current"], recorded.progress["total"]) == (3, 4)
    assert not recorded.progress.get("metrics")
