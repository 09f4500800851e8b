"""The client for programs that are not coroutines: `AsyncClient`, in a thread of its own."""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Self, TypeVar

from progress_broker.model.operation import Operation, PublishResult, Status
from progress_broker.settings import Settings
from progress_client.async_client import PAGE, PATIENCE_S, AsyncClient
from progress_client.events import Event
from progress_client.loop_thread import LoopThread

T = TypeVar("T")

_OF_PARENTS: list[object] = []
"""What a forked process has of its parent's. It is kept: closed, its connections would no longer wake the parent, since
both processes share what the event loop waits with."""


class _Working(NamedTuple):
    pid: int
    thread: LoopThread
    client: AsyncClient


class Client:
    """Reads and changes operations, over HTTP or in Redis. Any thread may use it, and forked processes, too.

    Arguments and errors are those of `AsyncClient`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        token_file: str | None = None,
        redis_url: str | None = None,
        settings: Settings | None = None,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        given = AsyncClient(
            url,
            token=token,
            token_file=token_file,
            redis_url=redis_url,
            settings=settings,
            patience_s=patience_s,
        )
        self.settings = given.settings
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._working: _Working | None = None

    def get(self, id: str, *, list_children: bool = False) -> Operation:
        """Return an operation as it is now; with `list_children`, also the first of its children."""
        return self._run(lambda client: client.get(id, list_children=list_children))

    def list(
        self,
        *,
        status: Status | str | Iterable[Status | str] | None = None,
        owner: str | None = None,
        kind: str | None = None,
        tag: str | Iterable[str] | None = None,
        parent: str | None = None,
        metadata: Mapping[str, str | float] | None = None,
        page_size: int = PAGE,
    ) -> Iterator[Operation]:
        """Yield the operations that match, the most recently changed first; pages of `page_size`
        (200 at most) are read as they are needed.

        Of several statuses any may match; of several tags, and of `metadata`, all have to.
        """
        return self._iterate(
            lambda client: client.list(
                status=status, owner=owner, kind=kind, tag=tag, parent=parent, metadata=metadata, page_size=page_size
            )
        )

    def watch(self, id: str, *, after: str | None = None, types: Iterable[str] | None = None) -> Iterator[Event]:
        """Yield what happens to an operation, as it happens, up to its `End`: see `AsyncClient.watch`."""
        return self._iterate(lambda client: client.watch(id, after=after, types=types))

    def wait(self, id: str, timeout: float | None = None) -> Operation:
        """Return the operation once it has ended. Raises `TimeoutError` if it has not within `timeout` seconds."""
        return self._run(lambda client: client.wait(id, timeout))

    def cancel(self, id: str, reason: str | None = None, *, by: str | None = None, force: bool = False) -> Operation:
        """Ask the worker of an operation, and those of its children, to stop: see `AsyncClient.cancel`."""
        return self._run(lambda client: client.cancel(id, reason, by=by, force=force))

    def signal(self, id: str, type: str, data: Any = None, *, by: str | None = None) -> None:
        """Send a signal, such as `pause`, to an operation's worker, which decides what to do with it."""
        self._run(lambda client: client.signal(id, type, data, by=by))

    def create(self, kind: str = "operation", **options: Any) -> Operation:
        """Create an operation for a worker that is not the SDK's. `options` are the fields of `NewOperation`."""
        return self._run(lambda client: client.create(kind, **options))

    def publish(self, id: str, type: str, data: Any = None) -> PublishResult:
        """Publish one event of an operation, as its worker: a `progress`, `log`, `end`, or one of your own types."""
        return self._run(lambda client: client.publish(id, type, data))

    def now(self) -> datetime:
        """Return the time by the clock that the times of operations are by."""
        return self._run(lambda client: client.now())

    def close(self) -> None:
        """Close the connections, and end the thread. Iterators that are still open end."""
        with self._lock:
            working, self._working = self._working, None
        if working is not None and working.pid == os.getpid():
            working.thread.stop(working.client.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        _, thread, client = self._start()
        return thread.run(call(client))

    def _iterate(self, call: Callable[[AsyncClient], AsyncGenerator[T]]) -> Iterator[T]:
        _, thread, client = self._start()
        return thread.iterate(call(client))

    def _start(self) -> _Working:
        """Return the thread and its client. They are of this process: a forked one starts its own."""
        with self._lock:
            if self._working is not None and self._working.pid != os.getpid():
                _OF_PARENTS.append(self._working)
                self._working = None
            if self._working is None:
                client = AsyncClient(settings=self.settings, patience_s=self._patience_s)
                self._working = _Working(os.getpid(), LoopThread(), client)
            return self._working
