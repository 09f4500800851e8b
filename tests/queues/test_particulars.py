"""Behaviour of single queues: their own ways to end a task."""

import signal
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from progress_broker.model.operation import Status
from tests.queues.waiting import at_work, ended, occupy, until
from tests.servers import wait_until
from tests.workers.harness import KEYS, Broker

celery, rq, dramatiq, arq, taskiq = (
    pytest.mark.parametrize("queue", [name], indirect=True) for name in ("celery", "rq", "dramatiq", "arq", "taskiq")
)


@celery
def test_a_task_that_is_replaced_goes_on_as_its_replacement(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("replaced"))
    assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, {"counted": 2}, 2)


@celery
def test_a_task_that_gets_no_further_has_ended_unless_it_is_sent_again(queue: Any, broker: Broker) -> None:
    # All at once: Celery needs seconds to notice a lost process.
    again = queue.enqueue("sent_again")
    tasks = {name: queue.enqueue(name) for name in ("lost", "rejected", "ignored", "too_slow")}
    shown = {name: ended(queue, broker, operation) for name, operation in tasks.items()}
    assert {name: (each.status, (each.error or {})["type"]) for name, each in shown.items()} == {
        "lost": (Status.FAILED, "worker-lost"),
        "rejected": (Status.FAILED, "Reject"),
        "ignored": (Status.CANCELLED, "cancelled"),
        "too_slow": (Status.FAILED, "TimeLimitExceeded"),
    }
    sent_again = ended(queue, broker, again)
    assert (sent_again.status, sent_again.attempt) == (Status.SUCCEEDED, 2)
    assert any("WorkerLostError" in line or "exited prematurely" in line for line in broker.logged(again))


@celery
def test_the_state_of_a_cancelled_task_is_revoked(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("waits")
    at_work(queue, broker, operation)
    broker.cancel(operation)
    result = queue.app.app.AsyncResult(operation)
    wait_until(lambda: result.state == "REVOKED", "Celery knows")


@rq
def test_the_status_of_a_cancelled_job_is_stopped_and_it_can_be_requeued_in_vain(
    queue: Any, broker: Broker, tmp_path: Path
) -> None:
    waiting = occupy(queue, broker)
    operation = queue.enqueue("touch", str(tmp_path / "touched"))
    broker.cancel(operation)
    broker.cancel(waiting[0])
    job = queue.app.queue.fetch_job(operation)
    for _ in range(2):
        wait_until(lambda: job.get_status() == "stopped", "RQ knows")
        job.requeue()
    ended(queue, broker, queue.enqueue("count", 1))
    assert not (tmp_path / "touched").exists()


@rq
def test_a_job_whose_work_horse_is_killed_and_that_has_no_retries_has_failed(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("lost"))
    assert shown.error is not None
    assert (shown.status, shown.error["type"]) == (Status.FAILED, "worker-lost")


@rq
def test_a_retry_that_a_job_returns_is_the_next_attempt(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("asks_again"))
    assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, 2, 2)


@rq
def test_a_job_that_is_requeued_after_its_end_runs_unreported(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("breaks")
    ended(queue, broker, operation)
    job = queue.app.queue.fetch_job(operation)
    wait_until(lambda: job.get_status() == "failed", "RQ knows")
    job.requeue()
    until(
        queue,
        broker,
        operation,
        lambda: f"task {operation} runs, but its progress is not reported" in queue.output(),
        "runs",
    )
    assert len(broker.data(operation, "end")) == 1


@rq
def test_jobs_that_are_scheduled_or_enqueued_together_are_pending(queue: Any, broker: Broker) -> None:
    from progress_workers.queues.rq import Queue

    idle = Queue("idle", connection=queue.app.connection)
    jobs = idle.enqueue_many([Queue.prepare_data("tests.queues.rq_app.count", [1]) for _ in range(2)])
    jobs.append(idle.enqueue_in(timedelta(hours=1), "tests.queues.rq_app.count", 1))
    assert [broker.show(job.id).status for job in jobs] == [Status.PENDING] * 3


@dramatiq
def test_a_message_that_another_middleware_fails_has_failed(queue: Any, broker: Broker) -> None:
    waiting = occupy(queue, broker)
    operation = queue.enqueue("too_old")
    broker.cancel(waiting[0])
    shown = ended(queue, broker, operation)
    assert (shown.status, shown.error) == (Status.FAILED, {"type": "failed", "message": "skipped"})


@arq
def test_a_job_that_takes_too_long_has_failed(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("slow"))
    assert (shown.status, shown.error) == (
        Status.FAILED,
        {"type": "TimeoutError", "message": "the job took longer than 0.3 s"},
    )


@arq
def test_a_job_whose_worker_is_told_to_stop_is_taken_up_by_the_next(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("resumes")
    at_work(queue, broker, operation)
    queue.tell(signal.SIGTERM)
    queue.start()
    shown = ended(queue, broker, operation)
    assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, 2, 2)
    assert "attempt 1 failed: the job's worker was stopped; the next attempt follows within 0 s" in broker.logged(
        operation
    )


@arq
def test_what_a_job_enqueues_is_pending_too(queue: Any, broker: Broker) -> None:
    enqueued = ended(queue, broker, queue.enqueue("passes_on", queue.idle)).result
    assert broker.show(enqueued).status is Status.PENDING


@arq
def test_a_job_may_have_an_id_that_no_operation_may_have(queue: Any, broker: Broker) -> None:
    from progress_workers.queues.arq import operation_id

    task = queue.enqueue("count", 3, job_id="cron:count:1")
    assert ended(queue, broker, operation_id(task)).result == {"counted": 3}


@arq
def test_a_job_under_the_id_of_one_that_was_cancelled_long_ago_runs(queue: Any, broker: Broker, tmp_path: Path) -> None:
    waiting = occupy(queue, broker)
    operation = queue.enqueue("touch", str(tmp_path / "first"), job_id="daily")
    broker.cancel(operation)
    for each in waiting:
        broker.cancel(each)
    wait_until(lambda: queue.redis.exists("arq:result:daily"), "it is rejected")
    assert not list(tmp_path.iterdir())
    broker.redis.hset(KEYS.operation(operation).snapshot, "finished", 1)  # long ago
    queue.redis.delete("arq:result:daily")
    queue.enqueue("touch", str(tmp_path / "second"), job_id="daily")
    wait_until((tmp_path / "second").exists, "it runs")


@taskiq
def test_a_plain_task_whose_operation_was_cancelled_in_the_queue_does_not_run(
    queue: Any, broker: Broker, tmp_path: Path
) -> None:
    waiting = occupy(queue, broker)
    second, last = (queue.enqueue("touch_plain", str(tmp_path / name)) for name in ("second", "last"))
    broker.cancel(second)
    broker.cancel(waiting[0])
    assert ended(queue, broker, last).status is Status.SUCCEEDED
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@taskiq
def test_a_task_that_requeues_itself_goes_on(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("requeued"))
    assert (shown.status, shown.attempt) == (Status.SUCCEEDED, 2)


EXAMPLE = """
    import asyncio, importlib, inspect, itertools, sys, textwrap
    guide = importlib.import_module("progress_workers.queues." + sys.argv[1]).__doc__.splitlines()[1:]
    names = {"__name__": "__main__"}
    exec(textwrap.dedent("\\n".join(itertools.takewhile(lambda line: line[:1] in ("", " "), guide))), names)
    call = names["import_rows"]
    result = call({}, [1]) if sys.argv[1] == "arq" else call([1])
    if inspect.isawaitable(result):
        asyncio.run(result)
"""


@pytest.mark.parametrize("name", ["celery", "dramatiq", "arq", "taskiq"])
def test_the_first_example_of_each_guide_runs_as_it_is_written(name: str) -> None:
    code = [sys.executable, "-c", textwrap.dedent(EXAMPLE), name]
    done = subprocess.run(code, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
