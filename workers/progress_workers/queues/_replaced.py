"""A Celery task that replaces itself (`self.replace(…)`): its operation goes on as that of the replacement.

The replacement's last task has the replaced task's id, and is the next attempt at its operation. The tasks before it
are children of the operation.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery import Signature, signature
from celery.app.task import Task

from progress_workers.operation import Operation
from progress_workers.queues._canvas import MARK, leaves_of, shape_of
from progress_workers.queues._runs import merge_options

ACCUMULATE = "celery.accumulate"
"""The task by which Celery ends a group that replaces a task. It returns the results of the group."""


def take_over(replacement: Signature, host: Task, op: Operation, is_reported: Callable[[Signature], bool]) -> bool:
    """Make the tasks of a replacement children of the operation of the task that they replace, which is `host`.

    Return whether its last task will end the operation: not if that is not reported.
    """
    request = host.request
    others = set(_ids(leaf for each in request.chain or () for leaf in leaves_of(signature(each, app=host.app))))
    leaves = [leaf for leaf in leaves_of(replacement) if leaf.options.get("task_id") not in others]
    last = [leaf for leaf in leaves if leaf.options.get("task_id") == request.id]
    children = [leaf for leaf in leaves if leaf not in last]
    for child in children:
        _add(child, {"parent": op.id})
    for each in last:
        if each.task == ACCUMULATE:
            _add(each, merge_options(host.name, getattr(host, "progress", None), request.get("progress")) or {})
    if children:
        shape = shape_of(replacement)
        op.update(metadata={MARK: {"canvas": shape, "tasks": len(leaves), "replaces": True}})
        op.flush()  # before a child looks for it
    return any(each.task == ACCUMULATE or is_reported(each) for each in last)


def _ids(leaves: Iterable[Signature]) -> Iterator[str]:
    return (leaf.options["task_id"] for leaf in leaves if "task_id" in leaf.options)


def _add(leaf: Signature, options: Any) -> None:
    """Add options of a task's operation, unless the task has its own, or is not to be reported."""
    headers = dict(leaf.options.get("headers") or {})
    own = headers.get("progress")
    if own is None or isinstance(own, dict):
        headers["progress"] = {**options, **(own or {})}
        leaf.set(headers=headers)
