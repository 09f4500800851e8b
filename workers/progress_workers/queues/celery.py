"""Celery: every task of an app is an operation.

    from celery import Celery
    import progress_workers
    from progress_workers.queues.celery import install

    app = Celery("shop", broker="redis://localhost/1")
    install(app)

    @app.task
    def import_rows(rows):
        for row in progress_workers.track(rows):
            ...

Call `install` where the app is created, so that it runs both in the processes that enqueue and in the worker.
`PROGRESS_REDIS_URL` sets which Redis the progress goes to. After `result = import_rows.delay(rows)`, the operation can
be followed as `result.id` at once.

An operation's kind is the task's name by default. Set this and other options where the task is declared or enqueued;
`False` turns reporting off:

    @app.task(progress={"kind": "import", "tags": ["nightly"]})
    def import_rows(rows): ...

    import_rows.apply_async([rows], headers={"progress": {"title": "Import of May", "owner": "alice"}})

    @app.task(progress=False)
    def heartbeat(): ...

**Retries** (`self.retry`, `autoretry_for`), redelivery (`acks_late` with `reject_on_worker_lost`, or a
visibility timeout) and `retry_on_worker_lost` are further attempts at the same operation.

**Cancelling.** `app.control.revoke(id)` ends the operation as cancelled when the worker discards the task. When an
operation is cancelled, its task stops where it checks: `progress_workers.current().raise_if_cancelled()`; its state is
then REVOKED. A task that never checks runs to its end. With `install(app, terminate_after_s=10)`, a task that still
runs 10 seconds after the cancel is revoked with `terminate`, which kills the process that runs it. This works only in
the prefork pool, and Celery advises against it where tasks are not idempotent.

**`update_state`.** What a task tells Celery's own way is its progress, too: of `self.update_state(state="PROGRESS",
meta={"current": 5, "total": 10, "status": "reading"})` the current, the total, the percent and the message (`message`,
`status` or `description`) are shown as such, and all else as metrics. Celery gets it as before.

**`replace`.** The operation of a task that replaces itself goes on as that of the replacement. If that is a task, it is
the next attempt. If it is a group, a chain or a chord, its tasks are children of the operation, which ends with the
last of them, with its result, or with the first one that fails or is cancelled.

**Groups, chains and chords.** `with_parent` makes one operation of all their tasks, with theirs as its children:

    canvas, id = with_parent(group(import_rows.s(part) for part in parts), title="Import of May")
    canvas.apply_async()

It ends when the last task has succeeded, or with the first one that fails or is cancelled, as Celery's own result does.
To cancel it cancels its tasks. A group shows the progress of its tasks together; a chain or a chord, whose tasks come
one after the other, shows how many are done. Apply a canvas once. A task that ends unreported does not count: one that
began while Redis was away, or whose whole worker is lost, unless it is delivered again within its lease. Then the
operation of the canvas goes on until you cancel it, or nothing has happened to it for `PROGRESS_IDLE_TIMEOUT_S`.

**Limits.** A lost prefork process (`WorkerLostError`) and a hard time limit end the operation as failed. If the whole
worker is lost, redelivery takes the operation over, or the broker ends it. A task that raises `Ignore` without being
replaced ends as cancelled, because Celery does not know an outcome either. Tasks that are called directly or eagerly
(`task_always_eager`) are not reported. Celery's signals belong to the process: if it has several apps, operations are
created for what every one of them enqueues.
"""

import functools
import os
from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Unpack

from progress_broker.extras import require

try:
    from celery import Celery, Signature, signals
    from celery.app import app_or_default
    from celery.app.task import Task, get_actual_ignore_result
    from celery.app.trace import build_tracer
    from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded, TimeLimitExceeded, WorkerLostError
    from celery.states import READY_STATES
    from celery.utils.time import maybe_make_aware
except ModuleNotFoundError:
    require("celery", __name__)
    raise

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import Status
from progress_broker.settings import load_settings
from progress_workers.errors import Cancelled
from progress_workers.null import NullOperation
from progress_workers.operation import Operation
from progress_workers.queues._canvas import Canvas, Part, create, leaves_of, settle_from_outside, shape_of
from progress_workers.queues._replaced import ACCUMULATE, take_over
from progress_workers.queues._runs import (
    OperationOptions,
    begin,
    create_for_task,
    end_from_outside,
    end_of,
    force_stop_after,
    hand_over,
    keep_for_retry,
    leave,
    merge_options,
    operation_id,
    outside_end,
    parent_of,
    seconds,
    stops,
    succeed,
)
from progress_workers.transport.registry import link_to
from progress_workers.values import attempt, let_pass, text

__all__ = ["Canvas", "install", "with_parent"]

let_pass(SoftTimeLimitExceeded)

_OWN = "celery."
"""The prefix of the names of Celery's own tasks, such as those that wait for a chord."""


def install(app: Celery, *, terminate_after_s: float | None = None) -> None:
    """Report the tasks of an app. Call it before a worker starts; a second call changes nothing.

    If a task still runs `terminate_after_s` seconds after its operation was cancelled, its process is killed. With
    None, the default, this never happens.
    """
    if app in _apps:
        return
    installed = _apps[app] = _Installed(app, terminate_after_s)
    for signal, receiver in (
        (signals.after_task_publish, _published),
        (signals.task_revoked, _revoked),
        (signals.task_failure, _failed),
        (signals.task_retry, _retried),
    ):
        signal.connect(receiver, weak=False)
    signals.worker_init.connect(installed.take_over, weak=False)
    signals.worker_process_init.connect(installed.take_over_here, weak=False)


class CanvasOptions(OperationOptions, total=False):
    """The options of the operation of a group, chain or chord. Its kind is `celery.group` and so on by default."""

    id: str | None
    """The operation's id; generated by default."""


def with_parent(canvas: Signature, **options: Unpack[CanvasOptions]) -> Canvas:
    """Create the operation of a group, chain or chord; return the canvas to apply, and the operation's id.

    Raises `InvalidInput` for an invalid `id` or `parent`, and if a task of the canvas is not reported, such as one with
    `progress=False`: then nobody would be told that it failed. Raises `TypeError` for an unknown option. Otherwise the
    canvas can be applied, whatever happens.
    """
    id = options.pop("id", None)
    leaves = list(leaves_of(canvas))
    if unreported := next((leaf for leaf in leaves if not _is_reported(leaf)), None):
        raise InvalidInput(
            f"task {unreported.task} is not reported, so the operation of its {type(canvas).__name__.strip('_')} could"
            " not tell that it failed: report it, or leave it out"
        )
    return create(canvas, leaves, id, options)


def _is_reported(leaf: Signature) -> bool:
    name = str(leaf.task)
    return not name.startswith(_OWN) and merge_options(name, _declared(name), _asked(leaf)) is not None


def _asked(leaf: Signature) -> object:
    return (leaf.options.get("headers") or {}).get("progress")


def _declared(name: str) -> object:
    return getattr(next((app.tasks[name] for app in _apps if name in app.tasks), None), "progress", None)


class _Installed:
    """An app whose tasks are reported."""

    def __init__(self, app: Celery, terminate_after_s: float | None) -> None:
        self._app, self._terminate_after_s = app, terminate_after_s

    def take_over(self, sender: Any, **_: Any) -> None:
        """Start to report the tasks of the app's worker, when all tasks are declared."""
        if sender.app is self._app:
            self._take_over(self._app, os.getpid())

    def take_over_here(self, sender: str, **_: Any) -> None:
        """Do the same in a pool process that was spawned, not forked from the worker: it has its own copy of the app.

        `sender` is the worker's name.
        """
        app = app_or_default()
        for task in self._take_over(app, None):
            task.__trace__ = build_tracer(task.name, task, app.loader, sender, app=app)

    def _take_over(self, app: Celery, worker_pid: int | None) -> list[Task]:
        taken = []
        for name, task in app.tasks.items():
            declared = merge_options(name, getattr(task, "progress", None))
            ours = not name.startswith(_OWN) or name == ACCUMULATE
            if declared is not None and ours and not isinstance(task.run, _Reported):
                task.run = _Reported(task, self._terminate_after_s, worker_pid)
                task.update_state = _UpdateState(task)
                task.on_replace = _OnReplace(task)
                taken.append(task)
        return taken


_apps: dict[Celery, _Installed] = {}


class _HandedOn:
    """Detects that a running task was enqueued again with the same id, as a retry, or was replaced."""

    def __init__(self, task: str, op: Operation | NullOperation) -> None:
        self.task, self.op = task, op
        self.so = False
        self.replaced_by = ""
        self.last_is_reported = False


_running: ContextVar[_HandedOn | None] = ContextVar("progress_celery", default=None)


class _Reported:
    """A task's function, reported. It replaces `task.run`, as Celery's automatic retries do."""

    def __init__(self, task: Task, terminate_after_s: float | None, worker_pid: int | None) -> None:
        self._task, self._run = task, task.run
        self._terminate_after_s, self._worker_pid = terminate_after_s, worker_pid
        functools.update_wrapper(self, task.run)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        request = self._task.request
        asked = request.get("progress")
        if self._task.name == ACCUMULATE and not isinstance(asked, dict):
            return self._run(*args, **kwargs)  # it replaces a task that is not reported
        operation_options = merge_options(self._task.name, getattr(self._task, "progress", None), asked)
        if request.called_directly or request.is_eager or operation_options is None:
            return self._run(*args, **kwargs)
        try:
            op = begin(Operation, request.id, operation_options)
        except Cancelled as error:
            end = outside_end(Status.CANCELLED, "cancelled", error.reason or "its task was cancelled")
            settle_from_outside(operation_id(request.id), operation_options.get("parent"), end)
            raise self._revoked(error) from None
        handed_on = _HandedOn(request.id, op)
        part = Part.of(parent_of(op))
        token = _running.set(handed_on)
        op.__enter__()
        try:
            with force_stop_after(op, self._terminate_after_s, functools.partial(self._terminate, request.id)):
                return self._worked(op, handed_on, functools.partial(self._run, *args, **kwargs))
        finally:
            _running.reset(token)
            if op.ended:
                leave(op)
            else:
                op.flush()
            if part is not None:
                part.settle(op.id, end_of(op))

    def _worked(self, op: Operation | NullOperation, handed_on: _HandedOn, work: Callable[[], Any]) -> Any:
        try:
            result = work()
        except Retry as retry:
            op.retry_in(_delay_s(retry), retry.exc)
            raise
        except Reject as reject:
            if reject.requeue:
                op.retry_in(0, "the worker rejected the task, which will be delivered again")
            else:
                op.fail(reject)
            raise
        except Ignore as ignored:
            if handed_on.last_is_reported:
                hand_over(op, handed_on.replaced_by)
            elif handed_on.replaced_by:
                op.log(f"it ends here: it was replaced by {handed_on.replaced_by}, whose last one is not reported")
                succeed(op, None)
            elif handed_on.so:
                op.retry_in(0, "the task was enqueued again")
            else:
                op.fail(Cancelled(op.id, f"ignored {text(ignored)}".strip()))
            raise
        except Exception as error:
            op.fail(error)
            if stops(op, error):
                raise self._revoked(error) from error
            raise
        except BaseException as error:  # the process was asked to end
            if os.getpid() != self._worker_pid:
                raise  # the main worker process knows the reason and what follows, and reports it
            if self._task.acks_late:
                op.retry_in(0, error)
            else:
                op.fail(error)
            raise
        if handed_on.so:
            op.retry_in(0)
        else:
            succeed(op, result)
        return result

    def _revoked(self, error: Exception) -> Ignore:
        request = self._task.request
        if isinstance(error, Cancelled):
            self._task.backend.mark_as_revoked(
                request.id, str(error), request=request, store_result=not get_actual_ignore_result(self._task, request)
            )
        return Ignore(str(error))

    def _terminate(self, task: str) -> None:
        self._task.app.control.revoke(task, terminate=True)


class _UpdateState:
    """A task's `update_state`, which also reports. It replaces the method of the task, as `run` is replaced."""

    def __init__(self, task: Task) -> None:
        self._update_state = task.update_state

    def __call__(self, task_id: str | None = None, state: str | None = None, meta: Any = None, **options: Any) -> Any:
        running = _running.get()
        if running is not None and task_id in (None, running.task) and state not in READY_STATES:
            attempt(_report_state, running.op, state, meta, otherwise=lambda _: None)
        return self._update_state(task_id=task_id, state=state, meta=meta, **options)


class _OnReplace:
    """A task's `on_replace`, which also makes the replacement a part of its operation. It replaces the method."""

    def __init__(self, task: Task) -> None:
        self._task, self._on_replace = task, task.on_replace

    def __call__(self, replacement: Signature) -> Any:
        running = _running.get()
        if running is None or running.task != self._task.request.id or not isinstance(running.op, Operation):
            return self._on_replace(replacement)
        running.last_is_reported = take_over(replacement, self._task, running.op, _is_reported)
        shape = shape_of(replacement)
        running.replaced_by = "another task" if shape == "task" else f"the tasks of a {shape}"
        return self._on_replace(replacement)


def _report_state(op: Operation | NullOperation, state: str | None, meta: object) -> None:
    if not isinstance(meta, dict):
        return
    rest = dict(meta)
    known = {name: rest.pop(name) for name in ("current", "total", "percent") if name in rest}
    messages = [rest.pop(name) for name in ("message", "status", "description") if isinstance(rest.get(name), str)]
    op.update(**known, message=messages[0] if messages else None, metrics=rest or None)


def _delay_s(retry: Retry) -> float:
    if isinstance(retry.when, datetime):
        until: datetime = maybe_make_aware(retry.when)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return seconds(retry.when)


def _published(sender: str, headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Create the operation of a task that was enqueued. In protocol 2, the message's `headers` name the task."""
    task = (headers or {}).get("id")
    if headers is None or task is None or sender.startswith(_OWN):
        return
    running = _running.get()
    if running is not None and running.task == task:
        running.so = True
    elif not headers.get("retries"):
        operation_options = merge_options(sender, _declared(sender), headers.get("progress"))
        if operation_options is not None:
            create_for_task(task, operation_options)


def _revoked(request: Any, terminated: bool, expired: bool, **_: Any) -> None:
    reason = "expired in the queue" if expired else "terminated" if terminated else "revoked"
    _end_from_outside(request.id, Status.CANCELLED, "cancelled", reason)


def _failed(task_id: str, exception: BaseException, **_: Any) -> None:
    """Report a failure that the task's process can no longer report. The process itself reports all other failures."""
    if isinstance(exception, WorkerLostError | TimeLimitExceeded):
        kind = "worker-lost" if isinstance(exception, WorkerLostError) else type(exception).__name__
        _end_from_outside(task_id, Status.FAILED, kind, str(exception))


def _end_from_outside(task: str, status: Status, kind: str, message: str) -> None:
    end_from_outside(task, status, kind, message)
    operation = operation_id(task)
    parent = attempt(lambda: link_to(load_settings()).carrier.view(operation).parent, otherwise=lambda _: None)
    settle_from_outside(operation, parent, outside_end(status, kind, message))


def _retried(request: Any, reason: Any, **_: Any) -> None:
    if isinstance(getattr(reason, "exc", None), WorkerLostError):
        keep_for_retry(request.id, _delay_s(reason), str(reason.exc))
