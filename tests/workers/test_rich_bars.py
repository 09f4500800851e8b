import io
import threading
from typing import Any

import pytest
import rich.progress
from rich.console import Console

from progress_workers import Operation
from progress_workers.bars._tasks import MAX_STAGES
from progress_workers.bars.rich import Progress, follow, track
from progress_workers.testing import Recording
from tests.servers import wait_until


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def made(**options: Any) -> Progress:
    return Progress(**{"console": console(), "auto_refresh": False, **options})


def stages(recorded: Recording) -> dict[str, tuple[str, float | None, float | None]]:
    return {
        stage["name"]: (stage["status"], stage["current"], stage["percent"])
        for stage in recorded.progress.get("stages", [])
    }


@pytest.mark.parametrize("disable", [False, True], ids=["drawn", "disabled"])
def test_one_task_is_the_operation_s_progress(recorded: Recording, op: Operation, disable: bool) -> None:
    with made(disable=disable) as progress:
        task = progress.add_task("[red]Reading[/] :books:", total=8)
        for _ in range(3):
            progress.advance(task)
        assert (recorded.progress["current"], recorded.progress["total"]) == (3, 8)
        assert recorded.progress["message"] == "Reading 📚"
        progress.update(task, completed=8, description="nearly")
    assert (recorded.progress["current"], recorded.progress["percent"]) == (8, 100)
    assert recorded.progress["message"] == "nearly"
    assert "stages" not in recorded.progress


def test_each_step_is_reported(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        task = progress.add_task("Reading", total=3)
        for _ in range(3):
            progress.advance(task)
    assert [told["current"] for told in recorded.progresses if told["total"]][-3:] == [1, 2, 3]


def test_of_several_tasks_each_is_a_stage(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        first = progress.add_task("read", total=10)
        second = progress.add_task("write", total=4, weight=3)
        third = progress.add_task("check", start=False)
        progress.advance(first, 10)
        progress.advance(second, 2)
        assert stages(recorded) == {
            "read": ("succeeded", 10, 100),
            "write": ("running", 2, 50),
            "check": ("pending", 0, 0),
        }
        assert recorded.progress["percent"] == 50  # (100 + 3 * 50 + 0) / 5
        assert recorded.progress["total"] is None
        progress.start_task(third)
        progress.update(third, total=5, completed=5)
        progress.update(second, completed=4)
    assert recorded.progress["percent"] == 100
    assert {status for status, _, _ in stages(recorded).values()} == {"succeeded"}


def test_what_one_task_counted_is_its_stage_s_when_another_comes(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        first = progress.add_task("read", total=10)
        progress.advance(first, 5)
        assert recorded.progress["percent"] == 50
        progress.add_task("write", total=10)
        assert stages(recorded) == {"read": ("running", 5, 50), "write": ("running", 0, 0)}
        assert recorded.progress["current"] is None
        assert recorded.progress["percent"] == 25  # there is more to do than was known


def test_stages_that_were_mentioned_before_keep_their_weights(recorded: Recording, op: Operation) -> None:
    op.stage("read", weight=9)
    op.stage("write")
    with made() as progress:
        first = progress.add_task("read", total=10)
        progress.add_task("write", total=10)
        progress.advance(first, 10)
    assert next(told["percent"] for told in recorded.progresses if told["percent"]) == 90


def test_tasks_of_one_description_are_told_apart(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        for _ in range(3):
            progress.add_task("read", total=10)
    assert list(stages(recorded)) == ["read", "read (1)", "read (2)"]


def test_hidden_tasks_are_not_reported_until_they_are_shown(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        hidden = progress.add_task("hidden", visible=False)
        task = progress.add_task("read", total=10)
        progress.advance(task, 4)
        progress.advance(hidden, 4)
        assert (recorded.progress["current"], recorded.progress["total"]) == (4, 10)
        progress.update(hidden, visible=True)
        assert list(stages(recorded)) == ["read", "hidden"]


def test_tasks_that_come_after_removed_ones_add_up(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        for _ in range(3):
            task = progress.add_task("one more", total=4)
            progress.advance(task, 4)
            progress.remove_task(task)
    assert (recorded.progress["current"], recorded.progress["total"]) == (12, 12)


def test_a_task_may_begin_anew(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        first, _ = progress.add_task("read", total=2), progress.add_task("write", total=2)
        progress.advance(first, 2)
        assert stages(recorded)["read"] == ("succeeded", 2, 100)
        progress.reset(first)
        assert stages(recorded)["read"] == ("running", 0, 0)


def test_by_an_exception_what_was_not_finished_has_failed(recorded: Recording) -> None:
    def work() -> None:
        with Operation.start("import"), made() as progress:
            first, _ = progress.add_task("read", total=2), progress.add_task("write", total=2)
            progress.advance(first, 2)
            raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        work()
    assert {name: status for name, (status, _, _) in stages(recorded).items()} == {
        "read": "succeeded",
        "write": "failed",
    }


def test_in_a_stage_s_block_the_first_task_is_its_progress(recorded: Recording, op: Operation) -> None:
    with op.stage("load"), made() as progress:
        task = progress.add_task("read", total=4)
        progress.add_task("beside")
        progress.advance(task, 2)
        assert stages(recorded) == {"load": ("running", 2, 50)}


def test_stages_are_bounded(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        for number in range(MAX_STAGES + 5):
            progress.advance(progress.add_task(f"file {number}"))
    assert len(stages(recorded)) == MAX_STAGES


@pytest.mark.parametrize("auto_refresh", [False, True])
def test_track_reports(recorded: Recording, op: Operation, auto_refresh: bool) -> None:
    rows = track("abcd", "Reading", console=console(), auto_refresh=auto_refresh, style="red", update_period=0.001)
    assert list(rows) == list("abcd")
    assert (recorded.progress["current"], recorded.progress["total"]) == (4, 4)
    assert recorded.progress["message"] == "Reading"


def test_a_progress_serves_one_operation_after_the_other(recorded: Recording) -> None:
    progress = made()
    for _ in range(2):
        with Operation.start("import"), progress:
            list(progress.track("abc"))
    assert [operation.progress["current"] for operation in recorded.of_kind("import")] == [3, 3]


def test_files_are_counted(recorded: Recording, op: Operation) -> None:
    with made() as progress, progress.wrap_file(io.BytesIO(b"x" * 1000), total=1000) as file:
        file.read(400)
        assert (recorded.progress["current"], recorded.progress["total"]) == (400, 1000)


def _drawing(cls: type[rich.progress.Progress]) -> str:
    out = console(terminal=True)
    with cls(
        "{task.description}", rich.progress.BarColumn(), console=out, auto_refresh=False, get_time=lambda: 0
    ) as progress:
        first, second = progress.add_task("[red]one", total=3), progress.add_task("two", total=None)
        progress.update(first, advance=2, refresh=True)
        progress.reset(second, total=5)
        progress.remove_task(first)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_what_is_drawn_is_what_rich_draws(recorded: Recording) -> None:
    plain = _drawing(rich.progress.Progress)
    assert "one" in plain
    assert _drawing(Progress) == plain
    with Operation.start("import"):
        assert _drawing(Progress) == plain


def test_outside_an_operation_nothing_is_reported(recorded: Recording) -> None:
    with made() as progress:
        list(progress.track("abc"))
    with follow(progress):
        pass
    assert recorded.operations == {}


def test_any_progress_can_be_followed(recorded: Recording, op: Operation) -> None:
    with rich.progress.Progress(console=console(), disable=True) as progress, follow(progress):
        task = progress.add_task("read", total=10)
        progress.advance(task, 4)
        wait_until(lambda: recorded.progress.get("current") == 4, "it is reported")
        progress.remove_task(task)
        first, _ = progress.add_task("write", total=10), progress.add_task("check", total=10)
        progress.advance(first, 10)
        wait_until(lambda: len(stages(recorded)) == 2, "both are stages")
    assert {name: status for name, (status, _, _) in stages(recorded).items()} == {
        "write": "succeeded",
        "check": "succeeded",
    }
    assert "progress-follow" not in {thread.name for thread in threading.enumerate()}


def test_a_progress_is_followed_for_the_operation_that_is_given(recorded: Recording) -> None:
    given = Operation.start("import")
    with rich.progress.Progress(console=console(), disable=True) as progress, follow(progress, given):
        progress.advance(progress.add_task("read", total=10), 4)
    assert recorded.progress["current"] == 4


def test_the_message_is_what_the_running_tasks_are(recorded: Recording, op: Operation) -> None:
    with made() as progress:
        first, second = progress.add_task("read", total=2), progress.add_task("write", total=2)
        assert recorded.progress["message"] == "read, write"
        progress.advance(first, 2)
        assert recorded.progress["message"] == "write"
        progress.update(second, description="flush")
        assert recorded.progress["message"] == "flush"
        progress.advance(second, 2)
    assert recorded.progress["message"] == "flush"


def test_steps_that_are_drawn_in_the_background_are_reported_now_and_then(recorded: Recording, op: Operation) -> None:
    with made(console=console(terminal=True), auto_refresh=True, refresh_per_second=20) as progress:
        task = progress.add_task("Reading", total=5_000)
        for _ in range(1_500):
            progress.advance(task)
        wait_until(lambda: recorded.progress["current"] == 1_500, "it is reported")  # although nothing changes any more
        for _ in range(1_500):
            progress.advance(task)
    assert recorded.progress["current"] == 3_000
    assert len(recorded.progresses) < 1_000
