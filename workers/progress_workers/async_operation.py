"""The public API for asyncio: the same operation, whose waiting methods are awaited."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from progress_broker.model.validation import check_arguments
from progress_workers.base import BaseOperation
from progress_workers.core.inbox import Signal
from progress_workers.current import enter, leave
from progress_workers.lifecycle import start
from progress_workers.lifecycle.create import create_pending
from progress_workers.lifecycle.handle import Handle
from progress_workers.operation import Operation
from progress_workers.options import AttachOptions, ChildOptions, CreateOptions, StartOptions
from progress_workers.shared_operation import SharedOperation
from progress_workers.transport.link import FLUSH_S
from progress_workers.wrapped import Join

T = TypeVar("T")
Register = Callable[[Callable[[Exception], None]], Callable[[], None]]


class AsyncOperation(SharedOperation):
    """An operation that asyncio code reports: `async with AsyncOperation.start("import") as op: …`.

    Methods that wait are coroutines. Everything else works as in `Operation`, with one difference: when the work is
    asked to stop, the task inside the block is cancelled, and the block raises what `raise_if_cancelled` would raise.
    """

    def __init__(self, opened: Handle) -> None:
        super().__init__(opened)
        self._scopes: dict[asyncio.Task[Any] | None, list[TaskScope | None]] = {}
        """By task, the scope of its outermost block, and None for each block inside that one."""

    @classmethod
    async def create(cls, kind: str, **options: Unpack[CreateOptions]) -> str:
        """Create a pending operation, as `Operation.create` does."""
        return await asyncio.to_thread(partial(create_pending, kind, **options))

    @classmethod
    def start(cls, kind: str, **options: Unpack[StartOptions]) -> "PendingOperation":
        """Create an operation, as `Operation.start` does. Await the result, or use it in `async with`."""
        return PendingOperation(cls, partial(start.start, kind, **options))

    @classmethod
    def attach(cls, id: str, **options: Unpack[AttachOptions]) -> "PendingOperation":
        """Join an operation, as `Operation.attach` does. Await the result, or use it in `async with`."""
        return PendingOperation(cls, partial(start.attach, id, **options))

    def child(self, kind: str, **options: Unpack[ChildOptions]) -> "PendingOperation":
        """Start a part of this operation, as `Operation.child` does. Await the result, or use it in `async with`."""
        self.raise_if_cancelled()
        return PendingOperation(
            type(self), partial(start.start, kind, parent=self.id, settings=self._settings, **options)
        )

    @overload
    def track(
        self,
        items: Iterable[T],
        *,
        total: float | None = None,
        description: str | None = None,
        raise_on_cancel: bool = False,
    ) -> Iterator[T]: ...
    @overload
    def track(
        self,
        items: AsyncIterable[T],
        *,
        total: float | None = None,
        description: str | None = None,
        raise_on_cancel: bool = False,
    ) -> AsyncIterator[T]: ...
    def track(
        self,
        items: AsyncIterable[T] | Iterable[T],
        *,
        total: float | None = None,
        description: str | None = None,
        raise_on_cancel: bool = False,
    ) -> AsyncIterator[T] | Iterator[T]:
        """Return the items one by one and count them: with `async for` if they are asynchronous, else with `for`.

        The options are those of `Operation.track`.
        """
        if not hasattr(type(items), "__aiter__"):
            plain: Iterable[T] = items  # type: ignore[assignment]
            return super().track(plain, total=total, description=description, raise_on_cancel=raise_on_cancel)
        self._expect(items, total, description)
        coming: AsyncIterable[T] = items  # type: ignore[assignment]
        if raise_on_cancel:
            coming = self._until_cancelled_async(coming)
        return self._reporter.progress.gauge.track_async(coming)

    async def _until_cancelled_async(self, items: AsyncIterable[T]) -> AsyncIterator[T]:
        self.raise_if_cancelled()
        async for item in items:
            yield item
            self.raise_if_cancelled()

    def signals(self, timeout: float | None = None) -> AsyncIterator[Signal]:
        """Yield the signals that are sent to the work, such as `pause`, as they arrive. End when the work has to stop.

        With a `timeout`, also end when no signal has arrived for that many seconds. With 0, yield only the signals that
        have already arrived.
        """
        check_arguments(timeout=timeout)
        return self._reporter.inbox.each_async(timeout)

    def _join(self) -> Join:
        return Operation.attach

    async def flush(self, timeout: float = FLUSH_S) -> bool:
        """Wait until everything reported so far is stored. Return whether this happened within `timeout` seconds."""
        check_arguments(timeout_s=timeout)
        loop, stored = asyncio.get_running_loop(), asyncio.Event()

        def on_stored() -> None:
            with suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(stored.set)

        forget = self._link.when_stored(self._reporter, on_stored)
        try:
            async with asyncio.timeout(timeout):
                await stored.wait()
        except TimeoutError:
            return False
        finally:
            forget()
        return not (self._reporter.tell_loss() or self._reporter.dropped or self._reporter.unconfirmed)

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        scope = None if task in self._scopes else TaskScope(self.on_cancel)
        self._scopes.setdefault(task, []).append(scope)
        enter(self)
        self._blocks.entered += 1
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._blocks.entered -= 1
        outermost = leave(self)
        stopped = self._leave_scope(error)
        if outermost:
            self._finish(stopped or error)
            self._check_flushed(stopped or error, await self.flush(self._link.exit_timeout_s()))
        if stopped is not None:
            raise stopped from error

    def _leave_scope(self, error: BaseException | None) -> Exception | None:
        task = asyncio.current_task()
        if task not in self._scopes:  # another task entered the block, such as that of an asynchronous generator
            task = next(iter(self._scopes))
        scopes = self._scopes[task]
        scope = scopes.pop()
        if not scopes:
            del self._scopes[task]
        return None if scope is None else scope.leave(error)


class PendingOperation:
    """An `AsyncOperation` that is not started yet: await it, or use it in `async with`."""

    def __init__(self, made: type[AsyncOperation], open: Callable[[], Handle]) -> None:
        self._made, self._open = made, open
        self._operation: AsyncOperation | None = None

    if not TYPE_CHECKING:  # which find that themselves

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"the operation is not started yet, so it has no {name!r}: `await` it, or use it in `async with`"
            )

    def __repr__(self) -> str:
        return "<PendingOperation: not started yet; await it, or use it in `async with`>"

    def __await__(self) -> Generator[Any, None, AsyncOperation]:
        return self._opened().__await__()

    async def __aenter__(self) -> AsyncOperation:
        self._operation = await self
        return await self._operation.__aenter__()

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._operation is not None:
            await self._operation.__aexit__(kind, error, traceback)

    async def _opened(self) -> AsyncOperation:
        claim = _AbandonableStart(self._made, self._open)
        try:
            opened = await asyncio.to_thread(claim.open)
        except asyncio.CancelledError as error:
            claim.abandon(error)  # the thread can't be stopped, and nobody will work on the operation that it starts
            raise
        return self._made(opened)


class _AbandonableStart:
    """An operation that a thread starts for a task. The task, or even its loop, may be gone when the start finishes."""

    def __init__(self, made: type[BaseOperation], open: Callable[[], Handle]) -> None:
        self._made, self._open = made, open
        self._lock = Lock()
        self._opened: Handle | None = None
        self._abandoned: BaseException | None = None

    def open(self) -> Handle:
        """Start the operation. If nobody waits for it any more, end it at once."""
        opened = self._open()
        with self._lock:
            self._opened, abandoned = opened, self._abandoned
        if abandoned is not None:
            self._made(opened)._finish(abandoned)
        return opened

    def abandon(self, error: BaseException) -> None:
        """Note that nobody waits any more. If the operation has already started, end it."""
        with self._lock:
            self._abandoned, opened = error, self._opened
        if opened is not None:
            self._made(opened)._finish(error)


class TaskScope:
    """Cancels the task that created it, at most once, until the scope is left. This is like `asyncio.timeout`."""

    def __init__(self, on_cancel: Register) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError(
                "enter an AsyncOperation's block inside an asyncio task, for example one started by `asyncio.run`"
            )
        self._task: asyncio.Task[object] | None = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._stopped: Exception | None = None
        self._forget = on_cancel(self._stop)

    def leave(self, error: BaseException | None) -> Exception | None:
        """End the scope. If its cancel is what ended the block, return the reason for that cancel."""
        self._forget()
        task, self._task = self._task, None
        if task is None or self._stopped is None:
            return None
        # Other code may have cancelled the task too. Then that code handles the cancellation.
        ours = task.uncancel() <= self._cancelling
        return self._stopped if ours and isinstance(error, asyncio.CancelledError) else None

    def _stop(self, error: Exception) -> None:
        with suppress(RuntimeError):  # the loop may be closed by now
            self._loop.call_soon_threadsafe(self._interrupt, error)

    def _interrupt(self, error: Exception) -> None:
        if self._task is not None:
            self._stopped = error
            self._task.cancel()
