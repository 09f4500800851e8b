"""Reports the tasks of a `rich.progress.Progress` as the progress of an operation."""

from collections.abc import Sequence
from functools import lru_cache
from threading import RLock

from rich.errors import MarkupError
from rich.progress import Task, TaskID
from rich.text import Text

from progress_workers.bars._share import BarContribution
from progress_workers.base import BaseOperation
from progress_workers.core.progress.stage import Stage
from progress_workers.values import number, text

MAX_STAGES = 32
"""Maximum number of tasks that are shown as stages. Further tasks are not reported."""


class Tasks:
    """Reports rich's tasks. A single visible task is the operation's progress, and its description the message; several
    tasks are reported as stages.

    With stages, the message lists the descriptions of the running tasks.

    A stage's name is the first description of its task, and its weight is the task's field `weight`. Inside the block
    of a stage, the first task is that stage's progress, and other tasks aren't reported.
    """

    def __init__(self, operation: BaseOperation) -> None:
        self._operation = operation
        self._lock = RLock()
        self._alone: tuple[Task, BarContribution] | None = None
        self._stages: dict[TaskID, Stage] = {}
        self._entered: dict[TaskID, str] = {}
        self._message = ""

    def show(self, task: Task) -> None:
        """Report a task that may have changed."""
        with self._lock:
            if self._alone is not None and self._alone[0] is task:
                self._count(task, self._alone[1], work=True)
            elif task.id in self._stages:
                self._show_stage(task, self._stages[task.id])
            elif task.visible:
                self._add(task)

    def show_all(self, tasks: Sequence[Task]) -> None:
        """Report all existing tasks; tasks that were reported before and are missing are over."""
        with self._lock:
            alone = set() if self._alone is None else {self._alone[0].id}
            for gone in (alone | self._stages.keys()) - {task.id for task in tasks}:
                self.forget(gone)
            for task in tasks:
                self.show(task)

    def forget(self, task: TaskID, error: BaseException | None = None) -> None:
        """Stop reporting a task that has ended, and leave its stage; `error` is what ended it, if anything."""
        with self._lock:
            if self._alone is not None and self._alone[0].id == task:
                self._alone[1].close()
                self._alone = None
            stage = self._stages.pop(task, None)
            if stage is not None and task in self._entered:
                self._leave(task, stage, error)

    def close(self, error: BaseException | None = None) -> None:
        """Stop reporting all tasks, and leave their stages; `error` is what ended them, if anything."""
        with self._lock:
            for task in [*self._stages, *([] if self._alone is None else [self._alone[0].id])]:
                self.forget(task, error)

    def _add(self, task: Task) -> None:
        if self._alone is None and not self._stages:
            share = BarContribution(self._operation)
            self._alone = task, share
            self._count(task, share, work=False)  # what is already done when the task appears was not done here
        elif self._alone is None:
            self._add_stage(task)
        elif self._alone[1].stage is None:
            first, share = self._alone
            self._alone = None
            share.withdraw()
            self._add_stage(first)
            self._add_stage(task)

    def _add_stage(self, task: Task) -> None:
        if len(self._stages) < MAX_STAGES:
            taken = {stage.name for stage in self._stages.values()}
            name = _shown(task.description) or "task"
            while name in taken:
                name = f"{name} ({task.id})"
            weight = number(task.fields.get("weight")) or None
            stage = self._stages[task.id] = self._operation.stage(name, weight, task.total)
            self._show_stage(task, stage)

    def _show_stage(self, task: Task, stage: Stage) -> None:
        stage.update(current=task.completed, total=task.total)
        if task.started and task.id not in self._entered and (not task.finished or stage.status == "pending"):
            self._entered[task.id] = ""
            stage.__enter__()
        if task.finished and task.id in self._entered:
            self._leave(task.id, stage, None)
        elif task.id in self._entered and self._entered[task.id] != (said := _shown(task.description)):
            self._entered[task.id] = said
            self._say()

    def _leave(self, task: TaskID, stage: Stage, error: BaseException | None) -> None:
        del self._entered[task]
        stage.__exit__(None if error is None else type(error), error, None)
        self._say()

    def _say(self) -> None:
        message = ", ".join(filter(None, self._entered.values()))
        if message and message != self._message:  # the last message stays when no task runs
            self._message = message
            self._operation.update(message=message)

    def _count(self, task: Task, share: BarContribution, *, work: bool) -> None:
        share.report(task.completed, task.total, _shown(task.description), work=work)


def _shown(description: object) -> str:
    return _text(text(description))


@lru_cache(256)  # called at each step
def _text(markup: str) -> str:
    try:
        return Text.from_markup(markup).plain.strip()
    except MarkupError:
        return markup
