"""One operation for a whole group, chain or chord of Celery: its tasks' operations are its children.

Each task that succeeds counts for it, and the one that counts last ends it as succeeded. The first task that does not
succeed ends it as that task has ended: Celery's own result is decided then, too. Redis adds the counts up, so the tasks
need not know of each other.
"""

import logging
from collections.abc import Iterator
from math import inf
from secrets import token_hex
from typing import Any, NamedTuple

import orjson
from celery import Signature

from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import Status
from progress_broker.model.publish import Publish, WorkerView
from progress_broker.settings import load_settings
from progress_workers.core.encoding import succeeded
from progress_workers.core.progress.progress import COUNTED
from progress_workers.lifecycle import start
from progress_workers.lifecycle.create import create_pending
from progress_workers.lifecycle.handle import Handle
from progress_workers.queues._runs import OperationOptions
from progress_workers.transport.registry import link_to
from progress_workers.values import number

logger = logging.getLogger(__name__)

MARK = "celery"
"""The key in the metadata of such an operation: what kind of canvas it is, and how many tasks it has. With `replaces`
it is the operation of a task that the canvas has replaced, and the last task of the canvas ends it."""


class Canvas(NamedTuple):
    """The operation of a canvas that was created, and the canvas, whose tasks are to be its children."""

    canvas: Signature
    id: str
    """The id of the operation."""


def create(canvas: Signature, leaves: list[Signature], id: str | None, options: OperationOptions) -> Canvas:
    """Create the operation of a canvas; if that fails, the log says so, and its tasks have a parent that is unknown."""
    operation = token_hex(10) if id is None else id
    shape = shape_of(canvas)
    given: dict[str, Any] = {"kind": f"celery.{shape}", "lease_s": None, **options}
    mark = {MARK: {"canvas": shape, "tasks": len(leaves)}}
    metadata = given.pop("metadata", None)
    given["metadata"] = {**metadata, **mark} if isinstance(metadata, dict) else mark
    try:
        create_pending(**given, id=operation)
        _describe(operation, None if _is_parallel(canvas) else len(leaves), ended=not leaves)
    except InvalidInput:
        raise
    except BrokerError as error:
        logger.warning("the operation of a %s could not be created, so its tasks have none in common: %s", shape, error)
    for leaf in leaves:
        headers = dict(leaf.options.get("headers") or {})
        own = headers.get("progress")
        headers["progress"] = {**(own if isinstance(own, dict) else {}), "parent": operation}
        leaf.set(headers=headers)
    return Canvas(canvas, operation)


_GROUP, _CHAIN, _CHORD = _SHAPES = ("celery.group", "celery.chain", "celery.chord")


def leaves_of(canvas: Signature) -> Iterator[Signature]:
    """Yield the tasks of a canvas, however it is nested."""
    if canvas.task not in _SHAPES:
        yield canvas
        return
    within = canvas.tasks
    for each in [within] if isinstance(within, Signature) else within:  # what a chord begins with may be a group
        yield from leaves_of(each)
    if canvas.task == _CHORD:
        yield from leaves_of(canvas.body)


def shape_of(canvas: Signature) -> str:
    """Return `group`, `chain`, `chord`, or `task`."""
    return str(canvas.task).removeprefix("celery.") if canvas.task in _SHAPES else "task"


def _is_parallel(canvas: Signature) -> bool:
    """Return whether all tasks are enqueued at once: then what they are shown to have done adds up to the whole."""
    return canvas.task == _GROUP and all(each.task not in _SHAPES or _is_parallel(each) for each in canvas.tasks)


def _describe(operation: str, total: int | None, *, ended: bool) -> None:
    """Report how many tasks there are, if not all are enqueued at once; and the end, if there is none at all."""
    settings = load_settings()
    entries = []
    if ended:
        entries.append(encode("end", {"status": Status.SUCCEEDED}, settings))
    elif total is not None:
        progress = dict.fromkeys(COUNTED) | {
            "current": 0,
            "total": total,
            "percent": 0,
            "unit": "tasks",
            "message": None,
        }
        entries.append(NewEvent("progress", orjson.dumps(progress)))
    if entries:
        link_to(settings).publish(Publish(operation, entries, as_observer=True))


class Part:
    """What one run of a task reports to the operation of its canvas. Nothing here raises."""

    def __init__(self, opened: Handle, tasks: float) -> None:
        self._opened, self._tasks = opened, tasks

    @classmethod
    def of(cls, parent: str | None) -> "Part | None":
        """Return what reports to a parent; None if it is not the operation of a canvas, or can't be reported to."""
        view = None if parent is None else _view(parent)
        tasks = None if view is None else _tasks_in(view)
        if parent is None or tasks is None:
            return None
        try:
            return cls(start.attach(parent, end_on_exit=False), tasks)
        except Exception as error:  # whatever the error is, the task must run
            logger.warning("a task runs, but does not count for operation %s: %s", parent, error)
            return None

    def settle(self, child: str, end: NewEvent | None) -> None:
        """Report how a task has ended; None: it will run again."""
        reporter = self._opened.reporter
        try:
            if end is not None and end.status != Status.SUCCEEDED:
                reporter.end(_end_of(child, end))
                settle_from_outside(reporter.operation, reporter.parent, end)
            elif end is not None and self._tasks < inf:
                reporter.progress.gauge.advance(1)
                self._opened.link.when_stored(reporter, self._end_if_last)
            reporter.release()
        except Exception:  # the task did its work, so a failed report must not fail it
            logger.exception("a task could not report its end to operation %s", reporter.operation)

    def _end_if_last(self) -> None:
        if self._opened.reporter.progress.done_by_all >= self._tasks:
            self._opened.reporter.end(succeeded(None, self._opened.settings)[0])


def settle_from_outside(child: str, parent: str | None, end: NewEvent) -> None:
    """End the operation of a canvas, because one of its tasks has not succeeded; and the one that it is a part of."""
    try:
        while parent is not None and (view := _view(parent)) is not None and _tasks_in(view) is not None:
            link_to(load_settings()).publish(Publish(parent, [_end_of(child, end)], as_observer=True))
            child, parent = parent, view.parent
    except Exception as error:  # whatever the error is, the queue must continue
        logger.warning("operation %s could not be ended with its task %s: %s", parent, child, error)


def _view(operation: str) -> WorkerView | None:
    """Return the state of an operation; None if it can't be read now."""
    try:
        return link_to(load_settings()).carrier.view(operation)
    except Exception as error:  # whatever the error is, the task must run
        logger.debug("operation %s can't be read: %s", operation, error)
        return None


def _tasks_in(view: WorkerView) -> float | None:
    """Return after how many tasks the operation of a canvas ends; None if it is another one, or has ended."""
    mark = view.metadata.get(MARK)
    if view.status.done or not isinstance(mark, dict):
        return None
    return inf if mark.get("replaces") else number(mark.get("tasks"))


def _end_of(child: str, end: NewEvent) -> NewEvent:
    """Return the end of the whole, as one of its tasks has ended; its error names that task's operation."""
    data = orjson.loads(end.data)
    error = data.get("error") or {}
    data |= {"result": None, "error": {**error, "operation": child}}
    return NewEvent("end", orjson.dumps(data), end.status)
