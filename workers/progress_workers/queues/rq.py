"""RQ: every job of a `Queue` is an operation.

    from redis import Redis
    from progress_workers.queues.rq import Queue

    queue = Queue("imports", connection=Redis())
    job = queue.enqueue(import_rows, rows)  # can be followed as job.id at once

The worker needs the job class, as an option or in `RQ_JOB_CLASS`:

    rq worker --job-class progress_workers.queues.rq.Job imports

The functions need no change: inside them, `progress_workers.current()` is the job's operation. `PROGRESS_REDIS_URL`
sets which Redis the progress goes to. An operation's kind is the function's name by default. Set this and other options
in the job's `meta`; `False` turns reporting off:

    queue.enqueue(import_rows, rows, meta={"progress": {"title": "Import of May", "owner": "alice", "tags": ["eu"]}})

**Retries** (`retry=Retry(…)`, or a `Retry` that the function returns) are further attempts at the same operation, also
after a work-horse was killed. When no retries are left, the operation ends as failed: as `worker-lost` if the
work-horse was killed.

**Cancelling.** `job.cancel()` and `send_stop_job_command` end the operation as cancelled, if the job is a `Job` of this
module and the worker uses this job class. `Job.fetch(id, connection)` returns such a job; RQ's own `cancel_job` uses
another class. When an operation is cancelled, its job stops where it checks:
`progress_workers.current().raise_if_cancelled()`. If the job still runs `Job.stop_after_s` seconds later (10), RQ's
stop command kills the work-horse. In both cases the job's status is `stopped`, and it is not retried. To change the
time, or to set None for never, use a subclass:

    class PatientJob(Job):
        stop_after_s = 60

**Limits.** A `SimpleWorker` has no work-horse that could be killed. A `SpawnWorker` ignores the job class and runs RQ's
own, so nothing is reported, and operations stay pending. If a job is requeued after it failed, or is repeated
(`repeat=Repeat(…)`), its second and later runs are not reported, because its operation has ended. If RQ can't pickle a
result, it fails the job after the operation succeeded. In a coroutine, too, `progress_workers.current()` is an
`Operation`.
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
from progress_workers.null import NullOperation
from progress_workers.operation import Operation
from progress_workers.queues._runs import (
    OperationOptions,
    begin,
    create_for_task,
    end_from_outside,
    force_stop_after,
    keep_for_retry,
    leave,
    merge_options,
    stops,
    succeed,
)
from progress_workers.values import let_pass

__all__ = ["Job", "Queue"]

let_pass(BaseTimeoutException)

_ENDS = (JobStatus.CANCELED, JobStatus.STOPPED, JobStatus.FAILED)


class Job(rq.job.Job):
    """A job that is an operation: for `rq worker --job-class progress_workers.queues.rq.Job`."""

    stop_after_s: ClassVar[float | None] = 10.0
    """How long a job may continue after its operation was cancelled, in seconds; None: without limit."""

    _reported = _stopped = False
    """Whether this process reported how the run ended, and whether the run was stopped."""

    @property
    def operation_options(self) -> OperationOptions | None:
        """The options of its operation; None if it is not reported."""
        try:
            kind = self.func_name
        except DeserializationError:
            kind = None
        return merge_options(kind or "job", self.meta.get("progress"))

    def perform(self) -> Any:
        """Run the job as an attempt at its operation."""
        operation_options = self.operation_options
        if operation_options is None:
            return super().perform()
        self._reported = True
        try:
            op = begin(Operation, self.id, operation_options)
        except Cancelled:
            self._stop()
            raise
        op.__enter__()
        try:
            with force_stop_after(op, self.stop_after_s, self._command_stop):
                return self._work(op)
        finally:
            leave(op)

    def set_status(self, status: JobStatus, pipeline: Any = None) -> None:
        """Set the status. If the run is over and could not report that itself, end the operation."""
        if status is JobStatus.FAILED and self._stopped:
            status = JobStatus.STOPPED
        super().set_status(status, pipeline=pipeline)
        if self._reported or status not in _ENDS or self.operation_options is None:
            return
        if status in (JobStatus.CANCELED, JobStatus.STOPPED):
            end_from_outside(self.id, Status.CANCELLED, "cancelled", f"the job was {status.value}")
        else:
            end_from_outside(self.id, Status.FAILED, "worker-lost", "the work-horse died, or could not start")

    def retry(self, queue: rq.Queue, pipeline: Any) -> None:
        """Enqueue the job again, and keep the operation open for its next attempt."""
        if not self._reported and self.operation_options is not None:
            keep_for_retry(self.id, self.get_retry_interval(), "the work-horse died")
        super().retry(queue, pipeline)

    def _work(self, op: Operation | NullOperation) -> Any:
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
            op.fail(f"all {result.max} retries are used up")
        else:
            op.retry_in(Retry.get_interval(self.number_of_retries or 0, result.intervals), "the job asked for a retry")
        return result

    def _stop(self) -> None:
        self._stopped, self.retries_left = True, None

    def _command_stop(self) -> None:
        self._reported = False
        send_stop_job_command(self.connection, self.id, serializer=self.serializer)


class Queue(rq.Queue):
    """A queue whose jobs are operations. Each operation is pending as soon as its job is enqueued."""

    job_class: type[rq.job.Job] = Job

    def enqueue_job(self, job: rq.job.Job, *args: Any, **options: Any) -> rq.job.Job:
        """Enqueue a job and create its operation."""
        return _announced(super().enqueue_job(job, *args, **options))

    def schedule_job(self, job: rq.job.Job, *args: Any, **options: Any) -> rq.job.Job:
        """Schedule a job and create its operation."""
        return _announced(super().schedule_job(job, *args, **options))

    def enqueue_many(self, job_datas: Iterable[Any], *args: Any, **options: Any) -> list[rq.job.Job]:
        """Enqueue jobs and create their operations."""
        return [_announced(job) for job in super().enqueue_many(job_datas, *args, **options)]


def _announced(job: rq.job.Job) -> rq.job.Job:
    operation_options = job.operation_options if isinstance(job, Job) else None
    if operation_options is not None:
        create_for_task(job.id, operation_options)
    return job
