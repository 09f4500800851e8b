"""RQ: every job of a `Queue` is an operation.

    from redis import Redis
    from progress_workers.queues.rq import Queue

    queue = Queue("imports", connection=Redis())
    job = queue.enqueue(import_rows, rows)  # can be followed as job.id at once

and the worker is told so, by its option or by `RQ_JOB_CLASS`:

    rq worker --job-class progress_workers.queues.rq.Job imports

The functions need no change: in one `progress_workers.current()` is its operation. Which Redis the progress goes to
says `PROGRESS_REDIS_URL`. What to say of an operation beside its kind, the function's name, goes into the job's `meta`;
`False` is for a job that is not to be reported:

    queue.enqueue(import_rows, rows, meta={"progress": {"title": "Import of May", "owner": "alice", "tags": ["eu"]}})

**Retries** (`retry=Retry(…)`, or a `Retry` that is returned) are further attempts at the same operation, also after a
work-horse was killed. Without retries left it ends as failed: `worker-lost` where the work-horse was killed.

**Cancelling.** `job.cancel()` and `send_stop_job_command` end the operation as cancelled, where the job is a `Job` of
this module and the worker was told of it: `Job.fetch(id, connection)` returns one; RQ's own `cancel_job` does not. An
operation that is cancelled stops its job where the job looks: `progress_workers.current().raise_if_cancelled()`. A job
that still runs `Job.stop_after_s` seconds later (10) is stopped by RQ's command, which kills the work-horse. Either way
its status is `stopped`, and it is not retried. Another time, or None for never, is said by a subclass:

    class PatientJob(Job):
        stop_after_s = 60

**Limits.** A `SimpleWorker` has no work-horse to kill; a `SpawnWorker` runs RQ's own kind of job, whatever it was told,
so that nothing is reported and operations stay pending. A job that is requeued after it failed, or repeated
(`repeat=Repeat(…)`), runs unreported from the second time on, as its operation has ended. A result that RQ can't pickle
fails the job after its operation succeeded. In a coroutine, too, `progress_workers.current()` is an `Operation`.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from progress_broker.extras import require

try:
    import rq
    import rq.job
    from rq import Retry
    from rq.command import send_stop_job_command
    from rq.exceptions import DeserializationError
    from rq.job import JobStatus
    from rq.timeouts import BaseTimeoutException
except ModuleNotFoundError:
    require("rq", __name__)
    raise

from progress_broker.model.operation import Status
from progress_workers.errors import Cancelled
from progress_workers.null import NoOperation
from progress_workers.operation import Operation
from progress_workers.queues._runs import (
    Words,
    announce,
    begin,
    conclude,
    hold,
    last_resort,
    leave,
    stops,
    succeed,
    worded,
)
from progress_workers.values import let_pass

__all__ = ["Job", "Queue"]

let_pass(BaseTimeoutException)

_ENDS = (JobStatus.CANCELED, JobStatus.STOPPED, JobStatus.FAILED)


class Job(rq.job.Job):
    """A job that is an operation: for `rq worker --job-class progress_workers.queues.rq.Job`."""

    stop_after_s: ClassVar[float | None] = 10.0
    """How long a job may go on after its operation was cancelled, in seconds; None for as long as it likes."""

    _told = _stopped = False
    """Whether this process said how the run went, and whether it was stopped."""

    @property
    def words(self) -> Words | None:
        """What is said of its operation; None if it is not reported."""
        try:
            kind = self.func_name
        except DeserializationError:
            kind = None
        return worded(kind or "job", self.meta.get("progress"))

    def perform(self) -> Any:
        """Do the work as an attempt at the operation."""
        words = self.words
        if words is None:
            return super().perform()
        self._told = True
        try:
            op = begin(Operation, self.id, words)
        except Cancelled:
            self._stop()
            raise
        op.__enter__()
        try:
            with last_resort(op, self.stop_after_s, self._command_stop):
                return self._work(op)
        finally:
            leave(op)

    def set_status(self, status: JobStatus, pipeline: Any = None) -> None:
        """Set the status, and end the operation if the run is over and could not say so itself."""
        if status is JobStatus.FAILED and self._stopped:
            status = JobStatus.STOPPED
        super().set_status(status, pipeline=pipeline)
        if self._told or status not in _ENDS or self.words is None:
            return
        if status in (JobStatus.CANCELED, JobStatus.STOPPED):
            conclude(self.id, Status.CANCELLED, "cancelled", f"the job was {status.value}")
        else:
            conclude(self.id, Status.FAILED, "worker-lost", "the work-horse ended without a word, or could not start")

    def retry(self, queue: rq.Queue, pipeline: Any) -> None:
        """Enqueue the job again, and keep the operation for its next attempt."""
        if not self._told and self.words is not None:
            hold(self.id, self.get_retry_interval(), "the work-horse ended without a word")
        super().retry(queue, pipeline)

    def _work(self, op: Operation | NoOperation) -> Any:
        try:
            result = super().perform()
        except BaseException as error:
            if stops(op, error):
                self._stop()
            if self.should_retry:
                op.retry_in(self.get_retry_interval(), error)
            else:
                op.fail(error)
            raise
        if not isinstance(result, Retry):
            succeed(op, result)
        elif self.number_of_retries and self.number_of_retries >= result.max:
            op.fail(f"its {result.max} retries are used up")
        else:
            op.retry_in(Retry.get_interval(self.number_of_retries or 0, result.intervals), "it asked for another try")
        return result

    def _stop(self) -> None:
        self._stopped, self.retries_left = True, None

    def _command_stop(self) -> None:
        self._told = False
        send_stop_job_command(self.connection, self.id, serializer=self.serializer)


class Queue(rq.Queue):
    """A queue whose jobs are operations, pending as soon as they are enqueued."""

    job_class: type[rq.job.Job] = Job

    def enqueue_job(self, job: rq.job.Job, *args: Any, **options: Any) -> rq.job.Job:
        """Enqueue a job, and create its operation."""
        return _announced(super().enqueue_job(job, *args, **options))

    def schedule_job(self, job: rq.job.Job, *args: Any, **options: Any) -> rq.job.Job:
        """Schedule a job, and create its operation."""
        return _announced(super().schedule_job(job, *args, **options))

    def enqueue_many(self, job_datas: Iterable[Any], *args: Any, **options: Any) -> list[rq.job.Job]:
        """Enqueue jobs, and create their operations."""
        return [_announced(job) for job in super().enqueue_many(job_datas, *args, **options)]


def _announced(job: rq.job.Job) -> rq.job.Job:
    words = job.words if isinstance(job, Job) else None
    if words is not None:
        announce(job.id, words)
    return job
