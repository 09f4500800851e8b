"""What people import: an operation to report on, from plain code and from asyncio."""

import asyncio
import logging
import os
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from workers import opening, payloads
from workers.link import FLUSH_S
from workers.opening import AttachOptions, Opened, StartOptions
from workers.stages import Stage

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Reporting:
    """What can be said of an operation, from any thread or task. None of it waits, or fails because Redis is away."""

    def __init__(self, opened: Opened) -> None:
        self._link, self._reporter, self._settings, self._ends = opened
        self._pid = os.getpid()
        # One that is dropped without an end must not be kept alive by beats: its lease has to lapse.
        weakref.finalize(self, self._reporter.release).atexit = False

    @property
    def id(self) -> str:
        """The operation's id."""
        return self._reporter.operation

    @property
    def cancelled(self) -> bool:
        """Whether the work should stop: someone asked for it, or the operation is no longer this process's."""
        return self._reporter.stopped() is not None

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if someone asked the work to stop.

        If the operation is no longer this process's to report, raise why: `Fenced`, `OperationEnded`, `NotFound`,
        `Gone` or `Invalid`.
        """
        error = self._reporter.stopped()
        if error is not None:
            raise error

    def advance(self, by: float = 1) -> None:
        """Count `by` more as done."""
        self._reporter.progress.gauge.advance(by)

    def update(
        self,
        *,
        current: float | None = None,
        total: float | None = None,
        percent: float | None = None,
        message: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """Say how far the work is; what is left out stays as it was.

        `percent` is for work that can't be counted. `metrics` are added to those told before, and so are `extra`
        fields, which are shown beside the others (`workers={…}` for a pool). What can't be stored is left out, and
        the log says so.
        """
        self._reporter.progress.update(current, total, percent, message, metrics, extra)

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the stage of this name, to be entered with `with`. Its first mention shows it as pending.

        Where the operation has no total, its percentage is what the stages mentioned so far add up to by `weight`
        (1 unless given): mention all of them before the first begins.
        """
        return self._reporter.stage(name, weight, total)

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Add a line to the operation's log; `level` is debug, info, warning, error or critical."""
        self._reporter.log(message, level, stage)

    def succeed(self, result: object = None) -> None:
        """End the operation as succeeded. Of several ends the first one counts.

        Raises `Invalid` or `TooLarge`, and ends nothing, if the result can't be stored as JSON.
        """
        self._reporter.end(payloads.succeeded(result, self._settings))

    def fail(self, error: BaseException | str) -> None:
        """End the operation as failed, with an exception's type and message; as cancelled if it means that."""
        stop = self._reporter.stop
        self._reporter.end(payloads.failed(error, self._settings, stop.reason if stop else None))

    def _leave(self, error: BaseException | None) -> None:
        # A forked child that leaves the block it was born in does not end its parent's work.
        if not self._ends or self._reporter.ended or os.getpid() != self._pid:
            return
        if error is None:
            self.succeed()
        else:
            self.fail(error)

    def _left(self, error: BaseException | None, flushed: bool) -> None:
        if not self._ends:
            self._reporter.release()
        if not flushed:
            logger.warning("the last of operation %s is not stored yet; it is sent when Redis takes it", self.id)
        if error is None and self._reporter.lost is not None:
            raise self._reporter.lost

    def _flush(self, timeout: float) -> bool:
        return self._link.flush([self._reporter], timeout)


class Operation(Reporting):
    """An operation reported by plain code, from any of its threads.

    In a `with` block it ends as the block does: `succeeded`, or `failed` with the exception that left it, or
    `cancelled`. Without one, call `succeed` or `fail`.
    """

    @classmethod
    def start(cls, kind: str, **options: Unpack[StartOptions]) -> Self:
        """Create an operation and say that it runs. Created before with the same words, it is taken up again.

        Options: `id` (made up unless given), `title`, `owner`, `tags`, `parent`, `total`, `unit`, `lease_s`, `worker`,
        `interval_s`, `settings`. Raises `StorageUnavailable`, `OperationExists`, `OperationEnded`, `Gone`, `Invalid`
        or `SetupError`.
        """
        return cls(opening.start(kind, **options))

    @classmethod
    def attach(cls, id: str, **options: Unpack[AttachOptions]) -> Self:
        """Join an operation that exists, and go on from its progress.

        Options: `ends` (False if leaving the block must not end it), `worker`, `interval_s`, `settings`. Raises
        `StorageUnavailable`, `NotFound`, `Gone`, `OperationEnded` or `SetupError`.
        """
        return cls(opening.attach(id, **options))

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Return the items one by one, counting them; if no total was given, their number is, where it is known."""
        self._reporter.progress.gauge.expect(items)
        return self._reporter.progress.gauge.track(items)

    def flush(self, timeout: float = FLUSH_S) -> bool:
        """Wait until all that was said so far is stored; return whether it was, within `timeout` seconds."""
        return self._flush(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._leave(error)
        self._left(error, self.flush())


class AsyncOperation(Reporting):
    """An operation reported from asyncio: `async with AsyncOperation.start("import") as op: …`.

    What waits is awaited; all else is as with `Operation`.
    """

    @classmethod
    def start(cls, kind: str, **options: Unpack[StartOptions]) -> "Opening":
        """Create an operation, as `Operation.start` does; await the result, or enter it with `async with`."""
        return Opening(cls, partial(opening.start, kind, **options))

    @classmethod
    def attach(cls, id: str, **options: Unpack[AttachOptions]) -> "Opening":
        """Join an operation, as `Operation.attach` does; await the result, or enter it with `async with`."""
        return Opening(cls, partial(opening.attach, id, **options))

    @overload
    def track(self, items: AsyncIterable[T]) -> AsyncIterator[T]: ...
    @overload
    def track(self, items: Iterable[T]) -> Iterator[T]: ...
    def track(self, items: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T] | Iterator[T]:
        """Return the items one by one, counting them: for `async for` if they are asynchronous, else for `for`."""
        gauge = self._reporter.progress.gauge
        gauge.expect(items)
        return gauge.track_async(items) if isinstance(items, AsyncIterable) else gauge.track(items)

    async def flush(self, timeout: float = FLUSH_S) -> bool:
        """Wait until all that was said so far is stored; return whether it was, within `timeout` seconds."""
        return await asyncio.to_thread(self._flush, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._leave(error)
        self._left(error, await self.flush())


class Opening:
    """An `AsyncOperation` about to be: await it, or enter it."""

    def __init__(self, made: type[AsyncOperation], open: Callable[[], Opened]) -> None:
        self._made, self._open = made, open
        self._operation: AsyncOperation | None = None

    def __await__(self) -> Generator[Any, None, AsyncOperation]:
        return self._opened().__await__()

    async def __aenter__(self) -> AsyncOperation:
        self._operation = await self
        return self._operation

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._operation is not None:
            await self._operation.__aexit__(kind, error, traceback)

    async def _opened(self) -> AsyncOperation:
        future = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            return self._made(await asyncio.shield(future))
        except asyncio.CancelledError as error:
            # The thread can't be stopped: what it opens nevertheless, nobody will work on.
            future.add_done_callback(partial(self._end_unclaimed, error))
            raise

    def _end_unclaimed(self, error: BaseException, future: "asyncio.Future[Opened]") -> None:
        if not future.cancelled() and future.exception() is None:
            self._made(future.result())._leave(error)
