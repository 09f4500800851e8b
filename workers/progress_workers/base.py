"""The methods that `Operation` and `AsyncOperation` share: everything that can be reported about an operation."""

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from progress_broker.errors import InvalidInput, TooLarge
from progress_broker.model.operation import MAX_REASON_CHARS
from progress_workers.core import encoding
from progress_workers.core.progress.measurement import Measurement
from progress_workers.core.progress.stage import Stage
from progress_workers.errors import CancelInfo, Cancelled, exited_well, is_cancellation
from progress_workers.lifecycle.forgotten import watch
from progress_workers.lifecycle.sigterm import end_on_sigterm
from progress_workers.tracing import NoTrace
from progress_workers.values import brief, number, text
from progress_workers.values.pool import Pool, shown_pool

if TYPE_CHECKING:
    from progress_workers.lifecycle.handle import Handle

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_DELAY_S = 366 * 86_400
"""The longest time for which an operation waits for its next attempt, in seconds."""


class BaseOperation:
    """Everything that can be reported about an operation, from any thread or task. No method here blocks or raises.

    This holds while Redis is unavailable, and for any value. A value that can't be shown as it is gets replaced by a
    readable text (`python -m pydoc progress_workers.values`) or is left out. The operation's log and Python's `logging`
    then report this once. Only `raise_if_cancelled` raises, in order to stop the work.
    """

    def __init__(self, opened: "Handle") -> None:
        if not isinstance(opened, tuple):
            raise TypeError(
                f"create an operation with {type(self).__name__}.start({brief(opened)}), not by calling the class"
            )
        self._link, self._reporter, self._settings, self._ends, _ = opened
        self._pid = os.getpid()
        self._callbacks: dict[object, Callable[[Exception], None]] = {}
        self._blocks = watch(self, self._reporter, ends=self._ends)
        end_on_sigterm(opened)

    def __repr__(self) -> str:
        """Return one line: the id, the status as this process knows it, and the progress."""
        if "_reporter" not in vars(self):  # it was not made by `start`, and the error for that shows it
            return f"<{type(self).__name__}>"
        progress = str(self._reporter.progress)
        status = self._reporter.status if self._reported else "not reported"
        return f"<{type(self).__name__} {self.id}: {status}{', ' if progress else ''}{progress}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            f"an operation can't be pickled: pass its id ({self.id!r}) instead, and join the operation in the other"
            f" process by {type(self).__name__}.attach(id, end_on_exit=False)"
        )

    @property
    def id(self) -> str:
        """The operation's id."""
        return self._reporter.operation

    @property
    def _reported(self) -> bool:
        """Whether anybody can see what is reported."""
        return not self._settings.disabled

    @property
    def trace(self) -> NoTrace:
        """The operation's span, if OpenTelemetry is set up."""
        return self._reporter.trace

    @property
    def attempt(self) -> int:
        """The number of this attempt at the work, starting at 1."""
        return self._reporter.attempt

    @property
    def ended(self) -> bool:
        """Whether this process has reported the end of the operation."""
        return self._reporter.ended

    @property
    def cancelled(self) -> bool:
        """Whether the work should stop: somebody cancelled it, or this process may no longer report the operation."""
        return self._reporter.cancellation.error() is not None

    @property
    def metadata(self) -> dict[str, Any]:
        """The operation's metadata, as this process knows it: as it was when it began, with its own changes."""
        return dict(self._reporter.outbox.metadata.known)

    @property
    def elapsed_ms(self) -> int:
        """How long the operation has run, from its start to now or to the end that this process has reported."""
        return self._reporter.elapsed_ms

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if somebody asked the work to stop.

        If this process may no longer report the operation, raise the reason: `Fenced`, `OperationEnded`, `NotFound`,
        `Gone` or `InvalidInput`.
        """
        error = self._reporter.cancellation.error()
        if error is not None:
            raise error

    def on_cancel(self, callback: Callable[[Exception], None]) -> Callable[[], None]:
        """Call `callback` once, as soon as the work should stop, with the exception of `raise_if_cancelled`.

        The call comes from a background thread. If the work should already stop, it happens immediately, in this
        thread. The callback must not block. Returns a function that removes the callback.
        """
        key, me = object(), weakref.ref(self)
        self._callbacks[key] = (
            callback  # kept here: the callback may refer to this operation, which must stay collectable
        )

        def call(error: Exception) -> None:
            operation = me()
            if operation is not None and (found := operation._callbacks.pop(key, None)) is not None:
                found(error)

        def forget() -> None:
            self._callbacks.pop(key, None)
            unregister()

        unregister = self._reporter.cancellation.on_stop(call)
        return forget

    def advance(self, by: float = 1) -> None:
        """Count `by` more units as done. A negative number takes units back; the count never goes below zero."""
        self._reporter.progress.gauge.advance(by)

    def skip(self, by: float = 1) -> None:
        """Count `by` more units as done without work, such as those of an earlier attempt. The rate ignores them."""
        self._reporter.progress.gauge.skip(by)

    def update(
        self,
        *,
        current: float | None = None,
        total: float | None = None,
        unit: str | None = None,
        percent: float | None = None,
        message: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        workers: Pool | Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """Report how far the work is. An argument that is omitted, or that has an invalid value, changes nothing.

        `percent`, 0 to 100, is for work that can't be counted. A negative `total` means that the total is unknown.
        `metrics` are merged into those reported before. `workers` describes the pool that does the work. `extra` fields
        are shown next to the others. If everything together exceeds `PROGRESS_MAX_PROGRESS_BYTES`, the largest of the
        metrics and the `extra` fields are left out.

        `metadata` changes what the application notes about the operation, which is not a part of the progress: each key
        replaces the one before, and None removes it.
        """
        if metadata is not None:
            self._reporter.update_metadata(metadata)
            if extra == {} and all(it is None for it in (current, total, unit, percent, message, metrics, workers)):
                return
        extra |= {} if workers is None else {"workers": shown_pool(workers)}
        self._reporter.progress.update(current, total, percent, message, metrics, extra, unit=unit)

    def track(
        self,
        items: Iterable[T],
        *,
        total: float | None = None,
        description: str | None = None,
        raise_on_cancel: bool = False,
    ) -> Iterator[T]:
        """Return the items one by one and count them. If no total was set, their number becomes the total.

        `total` says how many there are, where that is unknown, as for those of a generator. `description` is shown as
        the message. With `raise_on_cancel` the loop checks `raise_if_cancelled` before each item.
        """
        self._expect(items, total, description)
        return self._reporter.progress.gauge.track(self._until_cancelled(items) if raise_on_cancel else items)

    def _expect(self, items: object, total: float | None, description: str | None) -> None:
        self._reporter.progress.gauge.expect(items, total)
        if description is not None:
            self.update(message=description)

    def _until_cancelled(self, items: Iterable[T]) -> Iterator[T]:
        self.raise_if_cancelled()
        for item in items:
            yield item
            self.raise_if_cancelled()

    def increment(self, metric: str, by: float = 1) -> None:
        """Add to a metric that counts, such as `rows_bad`. It begins at 0. What several processes add is added up."""
        self._reporter.progress.increment(metric, by)

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the stage of this name, for use in `with`. The first call for a name shows the stage as pending.

        If the operation has no total, its percentage is the sum of the stages named so far, each counted by its
        `weight` (default 1). So name all stages before the first one begins.
        """
        return self._reporter.stage(name, weight, total)

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Add a line to the operation's log. `level` is debug, info, warning, error or critical.

        The names and numbers of Python's `logging` levels are accepted too.
        """
        self._reporter.log(message, level, stage)

    def publish(self, type: str, data: object = None) -> None:
        """Add an event of your own type, such as `thumbnail`. Its data may be any JSON.

        A type consists of the characters a-z, 0-9, `_`, `.` and `-`, and begins with a letter. An event with an invalid
        type, or with more data than `PROGRESS_MAX_EVENT_BYTES`, is left out.
        """
        name = text(type, 128)
        try:
            entry, said = encoding.custom(name, data, self._settings)
        except (InvalidInput, TooLarge) as error:
            self._reporter.complaints.add(f"publish {name}", f"an event of type {brief(name)} was left out: {error}")
            return
        self._reporter.publish(entry)
        if said:
            self._reporter.complaints.add(f"publish {name}", said)

    def succeed(self, result: object = None) -> None:
        """End the operation as succeeded. Only the first reported end counts.

        A result larger than `PROGRESS_MAX_EVENT_BYTES` is left out.
        """
        if self._reporter.ended:
            return
        entry, said = encoding.succeeded(result, self._settings)
        if said:
            self._reporter.complaints.add("result", said)
        self._reporter.end(entry)

    def fail(self, error: BaseException | str) -> None:
        """End the operation as failed, with the exception's type and message; or as cancelled, if it means a cancel."""
        if self._reporter.ended:
            return
        stop = self._reporter.cancellation.stop
        self._reporter.end(encoding.failed(error, self._settings, stop.reason if stop else None))

    def cancel(self, reason: str | None = None) -> None:
        """End the operation as cancelled, for a reason that people see, and ask all that works on it here to stop.

        A reason of more than 1,024 characters is cut.
        `raise_if_cancelled` then raises `Cancelled`, and `on_cancel` is called. This code goes on. Children go on, too.
        """
        if self._reporter.ended:
            return
        why = None if reason is None else text(reason, MAX_REASON_CHARS)
        self.fail(Cancelled(self.id, why))
        self._reporter.cancellation.request(CancelInfo(why))

    def retry_in(self, delay_s: float, error: BaseException | str | None = None) -> None:
        """Leave the operation open for a retry: this attempt failed, and the next follows within `delay_s` seconds.

        The log reports this, and the lease is extended until then. Leaving the block does not end the operation.
        """
        held_s = min(MAX_DELAY_S, max(0.0, number(delay_s) or 0.0))
        self._reporter.retry_in(held_s, encoding.given_up(error, held_s, self.attempt))

    def _measure(self, measured: Measurement) -> None:
        """Report how far the work is, as measured by its bar. Unlike with `update`, earlier counts don't last."""
        self._reporter.progress.measure(measured)

    def _finish(self, error: BaseException | None) -> None:
        # A forked child process that leaves the block must not end the operation of its parent process.
        if not self._ends or self._reporter.ended or os.getpid() != self._pid:
            return
        if error is None or exited_well(error):
            self.succeed()
        else:
            if is_cancellation(error):
                self._reporter.cancellation.request(
                    CancelInfo()
                )  # other parts of the work, such as a command or a thread, must stop too
            self.fail(error)

    def _check_flushed(self, error: BaseException | None, flushed: bool) -> None:
        if not self._ends:
            self._reporter.release()
            self.trace.end(None)
        # Dropped updates are already logged, and that the broker was away at the start, too.
        told = self._reporter.dropped or self._reporter.unconfirmed
        if not flushed and not told and self._reporter.opening is None:
            logger.warning(
                "the last updates of operation %s are not stored yet; they are sent as soon as that is possible",
                self.id,
            )
        if error is None and self._reporter.lost is not None:
            raise self._reporter.lost

    def _flush(self, timeout: float) -> bool:
        return self._link.flush([self._reporter], timeout)
