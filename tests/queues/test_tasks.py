"""The same facts for every queue: plain tasks are operations, run by real workers."""

import re
from pathlib import Path
from typing import Any

import pytest

from progress_broker.errors import NotFound
from progress_broker.model.operation import Status
from tests.queues.processes import alive
from tests.queues.waiting import at_work, ended, occupy, until
from tests.servers import wait_until
from tests.workers.harness import Broker

RETURNED = (
    "bytes",
    "surrogates",
    "numpy-int",
    "numpy-array",
    "nan",
    "66-bits",
    "decimal",
    "set",
    "odd-keys",
    "cycle",
    "object",
    "unreadable",
    "bad-str",
    "long",
)


def test_what_is_enqueued_can_be_followed_before_a_worker_has_it(queue: Any, broker: Broker) -> None:
    shown = broker.show(queue.enqueue("count", 3, idle=True, title="Count of May", owner="alice"))
    assert (shown.status, shown.kind, shown.tags) == (Status.PENDING, "count", ["eu"])
    assert (shown.title, shown.owner) == ("Count of May", "alice")


def test_a_task_reports_its_progress_and_what_it_returns(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("count", 3, title="Count of May", owner="alice")
    shown = ended(queue, broker, operation)
    assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, {"counted": 3}, 1)
    assert (shown.kind, shown.title, shown.owner, shown.tags) == ("count", "Count of May", "alice", ["eu"])
    assert shown.progress is not None
    assert (shown.progress["current"], shown.progress["total"]) == (3, 3)


def test_a_task_whose_result_is_no_json_succeeds(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("odd"))
    assert (shown.status, shown.result) == (Status.SUCCEEDED, "<Odd>")
    assert shown.kind.endswith("odd")


def test_a_task_s_outcome_is_what_it_is_without_us(queue: Any, broker: Broker) -> None:
    """The queue says the same of a task as without us, and its operation has succeeded."""
    said: dict[str, list[Any]] = {}
    tasks = {name: (queue.enqueue("returns", name), queue.enqueue("returns_unreported", name)) for name in RETURNED}
    for name, both in tasks.items():
        assert ended(queue, broker, both[0]).status is Status.SUCCEEDED, name
        for task in both:
            until(queue, broker, task, lambda task=task: queue.outcome(task), "has an outcome")  # type: ignore[misc]
            said.setdefault(name, []).append(re.sub(r"0x[0-9a-f]+", "0x", str(queue.outcome(task))))
    assert {name: first for name, (first, _) in said.items()} == {name: second for name, (_, second) in said.items()}
    assert ended(queue, broker, queue.enqueue("count", 1)).status is Status.SUCCEEDED


def test_a_task_that_raises_has_failed(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("breaks"))
    assert (shown.status, shown.error) == (Status.FAILED, {"type": "ValueError", "message": "bad row 7"})


def test_a_retry_is_the_next_attempt_at_the_same_operation(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("flaky")
    shown = ended(queue, broker, operation)
    assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, 2, 2)
    (said,) = broker.logged(operation)
    assert said.startswith("attempt 1 failed: ValueError: not yet")


def test_retries_that_are_used_up_have_failed(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("hopeless"))
    assert (shown.status, shown.attempt) == (Status.FAILED, 2)
    assert shown.error == {"type": "ValueError", "message": "bad row 7"}


@pytest.mark.parametrize("task", ["waits", "deaf"])
def test_an_operation_that_is_cancelled_stops_its_task(queue: Any, broker: Broker, task: str) -> None:
    operation = queue.enqueue(task)
    at_work(queue, broker, operation)
    broker.cancel(operation, "enough")
    assert ended(queue, broker, operation).status is Status.CANCELLED
    assert (
        ended(queue, broker, queue.enqueue("count", 1)).status is Status.SUCCEEDED
    )  # the worker is free for the next task
    assert broker.show(operation).attempt == 1


def test_a_task_whose_operation_was_cancelled_in_the_queue_does_not_run(
    queue: Any, broker: Broker, tmp_path: Path
) -> None:
    waiting = occupy(queue, broker)
    second, last = queue.enqueue("touch", str(tmp_path / "second")), queue.enqueue("touch", str(tmp_path / "last"))
    broker.cancel(second)
    for each in waiting:
        broker.cancel(each)
    assert ended(queue, broker, last).status is Status.SUCCEEDED
    assert ended(queue, broker, second).status is Status.CANCELLED
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_worker_that_is_killed_is_followed_by_another_attempt(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("dies")
    until(queue, broker, operation, lambda: broker.logged(operation), "begins")
    process = int(broker.logged(operation)[0])
    wait_until(lambda: not alive(process), "the process is gone")
    queue.forget_the_dead()
    until(queue, broker, operation, lambda: queue.start() or broker.data(operation, "end"), "is taken over")
    shown = ended(queue, broker, operation)
    assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, 2, 2)


@pytest.mark.parametrize("queue", ["celery", "rq", "arq"], indirect=True)
def test_a_task_that_is_stopped_by_its_queue_ends_as_cancelled(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("deaf")
    at_work(queue, broker, operation)
    queue.terminate(operation)
    assert ended(queue, broker, operation).status is Status.CANCELLED
    assert ended(queue, broker, queue.enqueue("count", 1)).status is Status.SUCCEEDED


@pytest.mark.parametrize("queue", ["celery", "rq", "arq"], indirect=True)
def test_a_task_that_is_revoked_in_the_queue_ends_as_cancelled(queue: Any, broker: Broker, tmp_path: Path) -> None:
    waiting = occupy(queue, broker)
    second = queue.enqueue("touch", str(tmp_path / "second"))
    with queue.revoking(second):
        for each in waiting:
            broker.cancel(each)
    assert ended(queue, broker, second).status is Status.CANCELLED
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_created_when_it_was_enqueued_is_when_it_begins(
    queue: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        queue.report_to(queue.nowhere(), away)
        operation = queue.enqueue("count", 3, title="Count of May", owner="alice")
    shown = ended(queue, broker, operation)
    assert (shown.status, shown.kind, shown.tags) == (Status.SUCCEEDED, "count", ["eu"])
    if queue.name != "arq":  # arq jobs carry no options
        assert (shown.title, shown.owner) == ("Count of May", "alice")


def test_a_task_can_be_left_unreported(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("unreported", 3) if queue.name == "rq" else queue.enqueue("unreported")
    ended(queue, broker, queue.enqueue("count", 1))
    with pytest.raises(NotFound):
        broker.show(operation)


def test_without_a_broker_for_progress_tasks_are_enqueued_and_run(
    queue: Any,
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The last of this file, as the workers would have to be started again for another one."""
    queue.report_to(queue.nowhere(), monkeypatch)
    queue.stop()
    queue.start()
    try:
        task = queue.enqueue("touch", str(tmp_path / "done"))
        assert "progress could not be sent to" in caplog.text
        until(queue, broker, task, (tmp_path / "done").exists, "runs")
        wait_until(lambda: "progress could not be sent to" in queue.output(), "the worker says so")
    finally:
        queue.stop()
