"""The null operation: it accepts every report and does nothing, so libraries can report whether or not there is one."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar

from progress_workers.base import BaseOperation
from progress_workers.core.progress.counter import Counter
from progress_workers.core.progress.measurement import Measurement
from progress_workers.core.progress.stage import Stage
from progress_workers.tracing import NO_TRACE

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class NullStage(Stage):
    """A stage of the null operation."""

    percent = None
    has_changed = False

    def __init__(self) -> None:
        self.name = ""

    def __repr__(self) -> str:
        return "<NullStage: nothing is reported>"

    def __reduce__(self) -> str:
        return "NULL_STAGE"

    def __enter__(self) -> "NullStage":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, by: float = 1) -> None:
        """Do nothing."""

    skip = advance

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Return the items one by one."""
        Counter.check(items)
        return iter(items)

    def update(self, **_: Any) -> None:
        """Do nothing."""

    def log(self, message: str, level: str = "info") -> None:
        """Do nothing."""


class NullOperation(BaseOperation):
    """The null operation. It is never cancelled, and its id is empty."""

    id = ""
    _reported = False
    trace = NO_TRACE
    attempt = 1
    ended = False
    cancelled = False
    elapsed_ms = 0
    metadata: dict[str, Any] = {}  # noqa: RUF012 - nothing is noted about it

    def __init__(self) -> None:
        pass

    def __repr__(self) -> str:
        return "<NullOperation: nothing is reported>"

    def __reduce__(self) -> str:
        return "NULL_OPERATION"

    def raise_if_cancelled(self) -> None:
        """Do nothing."""

    def on_cancel(self, callback: Callable[[Exception], None]) -> Callable[[], None]:
        """Never call the callback."""
        return lambda: None

    def advance(self, by: float = 1) -> None:
        """Do nothing."""

    skip = advance

    def update(self, **_: Any) -> None:
        """Do nothing."""

    def track(self, items: Any, **_: Any) -> Any:
        """Return the items one by one."""
        Counter.check(items)
        return items if hasattr(type(items), "__aiter__") else iter(items)

    def increment(self, metric: str, by: float = 1) -> None:
        """Do nothing."""

    def cancel(self, reason: str | None = None) -> None:
        """Do nothing."""

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the null stage."""
        return NULL_STAGE

    def child(self, kind: str, **_: Any) -> "NullOperation":
        """Return itself."""
        return self

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Do nothing."""

    def publish(self, type: str, data: object = None) -> None:
        """Do nothing."""

    def succeed(self, result: object = None) -> None:
        """Do nothing."""

    def fail(self, error: BaseException | str) -> None:
        """Do nothing."""

    def wrap(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function as it is."""
        return function

    def activate(self) -> "NullOperation":
        """Return itself."""
        return self

    def deactivate(self) -> None:
        """Do nothing."""

    def retry_in(self, delay_s: float, error: BaseException | str | None = None) -> None:
        """Do nothing."""

    def _measure(self, measured: Measurement) -> None:
        """Do nothing."""

    def signals(self, timeout: float | None = None) -> Iterator[Any]:
        """Yield no signals."""
        return iter(())

    def flush(self, timeout: float = 0) -> bool:
        """Return True: there is nothing to store."""
        return True

    def __enter__(self) -> "NullOperation":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> "NullOperation":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


NULL_STAGE = NullStage()
NULL_OPERATION = NullOperation()
