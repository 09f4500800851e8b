"""What people import for plain code: an operation to report on, from any of its threads."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self, Unpack

from progress_workers.base import Reporting
from progress_workers.core.inbox import Signal
from progress_workers.current import enter, leave
from progress_workers.lifecycle import start
from progress_workers.lifecycle.create import create_pending
from progress_workers.options import AttachOptions, ChildOptions, CreateOptions, StartOptions
from progress_workers.transport.connection import FLUSH_S


class Operation(Reporting):
    """An operation reported by plain code, from any of its threads.

    In a `with` block it ends as the block does: `succeeded`, or `failed` with the exception that left it, or
    `cancelled`. Without one, call `succeed` or `fail`.

    >>> with Operation.start("resize", total=2, unit="images") as op:
    ...     for image in op.track(["a.png", "b.png"]):
    ...         op.publish("thumbnail", {"url": f"/{image}"})
    >>> op.ended
    True
    """

    @classmethod
    def create(cls, kind: str, **options: Unpack[CreateOptions]) -> str:
        """Create an operation that is pending, for a worker to take up later, and return its id.

        Options: `id` (made up unless given), `title`, `owner`, `tags`, `parent`, `weight`, `lease_s`, `settings`.
        Created before with the same words, it is left as it is. Raises what `start` raises.

        Titles, owners and tags may be any values: they become texts, cut where they are too long.
        """
        return create_pending(kind, **options)

    @classmethod
    def start(cls, kind: str, **options: Unpack[StartOptions]) -> Self:
        """Create an operation and say that it runs. Created before with the same words, it is taken up again.

        Options: those of `create`, and `total`, `unit`, `new_attempt`, `worker`, `interval_s`. Raises
        `StorageUnavailable`, `OperationExists`, `OperationEnded`, `Gone` or `SetupError`; `Cancelled` where the
        `parent` was asked to stop; and `Invalid`, before anything is created, for an `id`, `parent` or `lease_s` that
        can't be and for `tags` that are one text. Any other bad value is ignored, and the log says so.
        """
        return cls(start.start(kind, **options))

    @classmethod
    def attach(cls, id: str, **options: Unpack[AttachOptions]) -> Self:
        """Join an operation that exists, and go on from its progress; or begin a new attempt at it.

        Options: `new_attempt` (True takes it over from whoever works on it, who is told by `Fenced`, and counts from
        the beginning), `ends` (False if leaving the block must not end it), `worker`, `interval_s`, `settings`.
        Raises `StorageUnavailable`, `NotFound`, `Gone`, `OperationEnded` or `SetupError`.
        """
        return cls(start.attach(id, **options))

    def child(self, kind: str, **options: Unpack[ChildOptions]) -> Self:
        """Start an operation that is a part of this one, whose progress counts towards it by its `weight` (1).

        Raises what `start` raises, and `Cancelled` where this one is asked to stop.
        """
        self.raise_if_cancelled()
        return type(self)(start.start(kind, parent=self.id, settings=self._settings, **options))

    def signals(self, timeout: float | None = None) -> Iterator[Signal]:
        """Yield what is sent to the work, such as `pause`, as it comes; end when the work has to.

        With a `timeout` it also ends after so many seconds without one; 0 yields what is there.

        >>> with Operation.start("render") as op:
        ...     for frame in op.track(range(3)):
        ...         for signal in op.signals(timeout=0):
        ...             print(signal.type, signal.data, signal.by)
        """
        return self._reporter.inbox.each(timeout)

    def flush(self, timeout: float = FLUSH_S) -> bool:
        """Wait until all that was said so far is stored; return whether it was, within `timeout` seconds."""
        return self._flush(timeout)

    def __enter__(self) -> Self:
        enter(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        leave(self)
        self._leave(error)
        self._left(error, self.flush(self._link.patience_s()))
