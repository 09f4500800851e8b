"""rich's progress bars, which also report.

Replace the import from `rich.progress` by `from progress_workers.bars.rich import Progress, track`. The bars are drawn
as rich draws them. Tasks that are added in an operation's block are reported to that operation, whether or not anything
is drawn: a single visible task is the operation's progress, several tasks become stages. `follow` reports a `Progress`
that other code created. Needs the extra `rich`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from progress_broker.extras import require

try:
    import rich.progress
    from rich.console import RenderableType
    from rich.progress import (
        BarColumn,
        ProgressColumn,
        Task,
        TaskID,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.style import StyleType
except ModuleNotFoundError:
    require("rich", __name__)
    raise

from progress_workers.bars._tasks import Tasks
from progress_workers.base import BaseOperation
from progress_workers.current import current

T = TypeVar("T")

_LOOK_S = 0.1
_PAUSE_S = 0.05
"""The shortest time between two reports of bars that a background thread draws. Drawing reports the remaining steps."""


class Progress(rich.progress.Progress):
    """rich's `Progress`. It reports its tasks to the operation in whose block the first one is added."""

    _reported: Tasks | None = None
    _reported_at = 0.0

    def __init__(self, *columns: str | ProgressColumn, **options: Any) -> None:
        self._unreported: set[TaskID] = set()
        self._known: dict[TaskID, Task] = {}
        super().__init__(*columns, **options)

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """Add a task. In an operation's block it is reported. If there are several tasks, each is a stage; the field
        `weight` is the stage's weight."""
        operation = current()
        if self._reported is None and operation.id:
            self._reported = Tasks(operation)
        task = super().add_task(description, start, total, completed, visible, **fields)
        self._report(task)
        return task

    def start_task(self, task_id: TaskID) -> None:
        """Start a task."""
        super().start_task(task_id)
        self._report(task_id)

    def stop_task(self, task_id: TaskID) -> None:
        """Stop a task's timer."""
        super().stop_task(task_id)
        self._report(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task; see `rich.progress.Progress.update`."""
        super().update(task_id, **changes)
        self._report(task_id)

    def reset(self, task_id: TaskID, **changes: Any) -> None:
        """Restart a task; see `rich.progress.Progress.reset`."""
        super().reset(task_id, **changes)
        self._report(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Count steps of a task as done."""
        super().advance(task_id, advance)
        if self._reported is None:
            return
        now = monotonic()
        if self.live.is_started and self.live.auto_refresh and now - self._reported_at < _PAUSE_S:
            self._unreported.add(task_id)
        else:
            self._reported_at = now
            self._report(task_id)

    def get_renderable(self) -> RenderableType:
        """Return what is drawn, after reporting the remaining steps."""
        self._catch_up()
        return super().get_renderable()

    def remove_task(self, task_id: TaskID) -> None:
        """Remove a task; its work is over."""
        self._catch_up()
        super().remove_task(task_id)
        self._known.pop(task_id, None)
        if self._reported is not None:
            self._reported.forget(task_id)

    def stop(self) -> None:
        """Stop drawing; the work of all tasks is over."""
        super().stop()
        self._over(None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over(error)
        super().__exit__(kind, error, traceback)

    def _report(self, task_id: TaskID) -> None:
        if self._reported is None:
            return
        task = self._known.get(task_id)
        if task is None:
            # The library has no look-up by id; its list is searched once for each task, the newest first.
            task = next((task for task in reversed(self.tasks) if task.id == task_id), None)
        if task is not None:
            self._known[task_id] = task
            self._reported.show(task)

    def _catch_up(self) -> None:
        while self._unreported:
            with suppress(KeyError):  # another thread was quicker
                self._report(self._unreported.pop())

    def _over(self, error: BaseException | None) -> None:
        self._catch_up()
        reported, self._reported = self._reported, None
        if reported is not None:
            reported.close(error)


def track(
    sequence: Iterable[T],
    description: str = "Working...",
    total: float | None = None,
    completed: int = 0,
    *,
    style: StyleType = "bar.back",
    complete_style: StyleType = "bar.complete",
    finished_style: StyleType = "bar.finished",
    pulse_style: StyleType = "bar.pulse",
    update_period: float = 0.1,
    show_speed: bool = True,
    **options: Any,
) -> Iterator[T]:
    """Return the items one by one and draw a bar, as `rich.progress.track` does; other options go to `Progress`."""
    bar = BarColumn(style=style, complete_style=complete_style, finished_style=finished_style, pulse_style=pulse_style)
    columns: list[ProgressColumn] = [TextColumn("[progress.description]{task.description}")] if description else []
    columns += [bar, TaskProgressColumn(show_speed=show_speed), TimeRemainingColumn(elapsed_when_finished=True)]
    with Progress(*columns, **options) as progress:
        yield from progress.track(
            sequence, total=total, completed=completed, description=description, update_period=update_period
        )


@contextmanager
def follow(progress: rich.progress.Progress, operation: BaseOperation | None = None) -> Iterator[None]:
    """Report the tasks of any `Progress` while in the block, to the given operation or the current one.

    A `Progress` does not notify about changes, so a thread checks its tasks ten times a second.
    """
    reported_to = current() if operation is None else operation
    if not reported_to.id:
        yield
        return
    tasks, over = Tasks(reported_to), Event()

    def look() -> None:
        while not over.wait(_LOOK_S):
            tasks.show_all(progress.tasks)

    thread = Thread(target=look, name="progress-follow", daemon=True)
    thread.start()
    cause: BaseException | None = None
    try:
        yield
    except BaseException as error:
        cause = error
        raise
    finally:
        over.set()
        thread.join()
        tasks.show_all(progress.tasks)
        tasks.close(cause)
