"""What the adapters share, and the error if a queue is not installed."""

import re
import subprocess
import sys
from threading import Event
from typing import Any

import pytest

from progress_broker.model.operation import OPERATION_ID, Status
from progress_workers import Cancelled, Operation
from progress_workers.null import NULL_OPERATION
from progress_workers.queues._runs import (
    begin,
    create_for_task,
    end_from_outside,
    force_stop_after,
    leave,
    merge_options,
    operation_id,
)
from tests.queues.queues import QUEUES, ROOT
from tests.servers import wait_until
from tests.workers.harness import Broker


@pytest.mark.parametrize("task", ["41435426-811b-4b81-bb6b-999df77ff1ff", "a", "x" * 128, "import~2.May_3"])
def test_a_task_s_id_is_its_operation_s_where_it_may_be(task: str) -> None:
    assert operation_id(task) == task


def test_other_ids_are_written_so_that_they_stay_apart() -> None:
    tasks = ["cron:count:1", "cron count:1", "cron/count:1", "~count", "", "-", "\udc80", "ü" * 200, "ü" * 199]
    written = [operation_id(task) for task in tasks]
    assert written[0] == "cron~3a.count~3a.1"
    assert len(set(written)) == len(tasks)
    assert all(re.fullmatch(OPERATION_ID, each) for each in written)


def test_what_is_said_later_of_a_task_wins_and_false_says_nothing() -> None:
    assert merge_options("count", {"kind": "import", "owner": "ada"}, None, {"owner": "grace"}) == {
        "kind": "import",
        "owner": "grace",
    }
    assert merge_options("count", None) == {"kind": "count"}
    assert merge_options("count", False, {"owner": "grace"}) is None


def test_a_task_that_was_cancelled_between_two_attempts_ends_and_does_not_run(broker: Broker) -> None:
    with begin(Operation, "between", {"kind": "count"}) as op:
        op.retry_in(60, "not yet")
    broker.cancel("between", "enough")
    assert broker.show("between").status is Status.CANCELLING
    for _ in range(2):  # the second time it has already ended
        with pytest.raises(Cancelled):
            begin(Operation, "between", {"kind": "count"})
        assert broker.show("between").status is Status.CANCELLED


def test_a_task_that_ended_otherwise_runs_again_unreported(broker: Broker) -> None:
    with begin(Operation, "again", {"kind": "count"}):
        pass
    assert begin(Operation, "again", {"kind": "count"}) is NULL_OPERATION
    broker.delete("again")
    assert begin(Operation, "again", {"kind": "count"}) is NULL_OPERATION


def test_a_run_that_lost_its_operation_leaves_it_without_an_error(broker: Broker, caplog: Any) -> None:
    first = begin(Operation, "fenced", {"kind": "count"})
    first.__enter__()
    with begin(Operation, "fenced", {"kind": "count"}) as second:
        assert second.attempt == 2
        first.succeed("mine")
        leave(first)
        assert "this run of the task stopped reporting operation fenced" in caplog.text
        second.succeed("the second's")
    assert broker.show("fenced").result == "the second's"


def test_what_ends_a_task_elsewhere_changes_no_end(broker: Broker) -> None:
    create_for_task("done", {"kind": "count"})
    end_from_outside("done", Status.CANCELLED, "cancelled", "revoked")
    end_from_outside("done", Status.FAILED, "worker-lost", "too late")
    end_from_outside("unknown", Status.FAILED, "worker-lost", "never heard of")
    shown = broker.show("done")
    assert (shown.status, shown.error) == (Status.CANCELLED, {"type": "cancelled", "message": "revoked"})


@pytest.mark.parametrize("after_s", [0.01, None])
def test_the_last_resort_is_for_tasks_that_go_on_after_their_operation_was_cancelled(
    broker: Broker, after_s: float | None
) -> None:
    stopped = Event()
    with begin(Operation, f"stubborn-{after_s}", {"kind": "count"}) as op, force_stop_after(op, after_s, stopped.set):
        broker.cancel(op.id)
        wait_until(lambda: op.cancelled, "it is heard")
        if after_s is not None:
            assert stopped.wait(30), "it comes"
    assert stopped.is_set() is (after_s is not None)


@pytest.mark.parametrize("name", QUEUES)
def test_without_its_library_an_adapter_says_what_to_install(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; import progress_workers.queues.{name}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"pip install 'progress-broker[{name}]'" in run.stderr.splitlines()[-1]


def test_the_sdk_imports_none_of_the_libraries() -> None:
    code = f"import sys, progress_workers.queues; print(set({list(QUEUES)!r}) & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
