"""What can be said of an operation, whichever shell it is reported through."""

import logging
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from progress_broker.errors import Invalid, TooLarge
from progress_workers.core import encoding
from progress_workers.core.progress.stage import Stage
from progress_workers.errors import Stop, exited_well, is_cancellation
from progress_workers.tracing import NoTrace
from progress_workers.values import brief, number, text
from progress_workers.values.pool import Pool, shown_pool

if TYPE_CHECKING:
    from progress_workers.lifecycle.start import Opened

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_DELAY_S = 366 * 86_400
"""Longest time that an operation is held for its next attempt."""


class Reporting:
    """What can be said of an operation, from any thread or task. None of it waits, and none of it raises.

    Redis may be away, and values may be anything: what can't be shown as it is has a readable text in its place
    (`python -m pydoc progress_workers.values`) or is left out, and then the operation's log and Python's say so, once.
    """

    def __init__(self, opened: "Opened") -> None:
        if isinstance(opened, str):
            raise TypeError(f"an operation is started: {type(self).__name__}.start({opened!r})")
        self._link, self._reporter, self._settings, self._ends = opened
        self._pid = os.getpid()
        self._callbacks: dict[object, Callable[[Exception], None]] = {}
        # One that is dropped without an end must not be kept alive by beats: its lease has to lapse.
        weakref.finalize(self, self._reporter.release).atexit = False

    @property
    def id(self) -> str:
        """The operation's id."""
        return self._reporter.operation

    @property
    def trace(self) -> NoTrace:
        """Its span, where OpenTelemetry is set up."""
        return self._reporter.trace

    @property
    def attempt(self) -> int:
        """Which attempt at the work this is, from 1."""
        return self._reporter.attempt

    @property
    def ended(self) -> bool:
        """Whether this process has said how the operation ended."""
        return self._reporter.ended

    @property
    def cancelled(self) -> bool:
        """Whether the work should stop: someone asked for it, or the operation is no longer this process's."""
        return self._reporter.sign.error() is not None

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if someone asked the work to stop.

        If the operation is no longer this process's to report, raise why: `Fenced`, `OperationEnded`, `NotFound`,
        `Gone` or `Invalid`.
        """
        error = self._reporter.sign.error()
        if error is not None:
            raise error

    def on_cancel(self, callback: Callable[[Exception], None]) -> Callable[[], None]:
        """Have `callback` called with what `raise_if_cancelled` would raise, once, as soon as it would.

        It is called from a thread in the background, or here and now if that time has come; it must not block.
        Returns what takes it back.
        """
        key, me = object(), weakref.ref(self)
        self._callbacks[key] = callback  # here, as it may refer to this operation, which may be dropped

        def call(error: Exception) -> None:
            operation = me()
            if operation is not None and (found := operation._callbacks.pop(key, None)) is not None:
                found(error)

        def forget() -> None:
            self._callbacks.pop(key, None)
            unregister()

        unregister = self._reporter.sign.on_stop(call)
        return forget

    def advance(self, by: float = 1) -> None:
        """Count `by` more as done. A number below zero takes back, down to zero."""
        self._reporter.progress.gauge.advance(by)

    def skip(self, by: float = 1) -> None:
        """Count `by` more as done that took no work, such as what an earlier attempt did: no part of the rate."""
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
        workers: Pool | Mapping[str, Any] | None = None,
        **extra: Any,
    ) -> None:
        """Say how far the work is; what is left out stays as it was, and so does what is given a bad value.

        `percent`, 0 to 100, is for work that can't be counted. A `total` below zero means that it is not known.
        `metrics` are added to those told before; `workers` is the pool that does the work. `extra` fields are shown
        beside the others. Where all takes more than `PROGRESS_MAX_PROGRESS_BYTES`, the largest of the metrics and of
        the `extra` fields are left out.
        """
        extra |= {} if workers is None else {"workers": shown_pool(workers)}
        self._reporter.progress.update(current, total, percent, message, metrics, extra, unit=unit)

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Return the items one by one, counting them; if no total was given, their number is, where it is known."""
        self._reporter.progress.gauge.expect(items)
        return self._reporter.progress.gauge.track(items)

    def stage(self, name: str, weight: float | None = None, total: float | None = None) -> Stage:
        """Return the stage of this name, to be entered with `with`. Its first mention shows it as pending.

        Where the operation has no total, its percentage is what the stages mentioned so far add up to by `weight`
        (1 unless given): mention all of them before the first begins.
        """
        return self._reporter.stage(name, weight, total)

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        """Add a line to the operation's log; `level` is debug, info, warning, error or critical.

        Levels may also be spelled or numbered as `logging` does.
        """
        self._reporter.log(message, level, stage)

    def publish(self, type: str, data: object = None) -> None:
        """Add an event of a type of your own, such as `thumbnail`, with any JSON as its data.

        A type is of a-z, 0-9 and _ . - and begins with a letter. An event of another type, or of more data than
        `PROGRESS_MAX_EVENT_BYTES`, is left out.
        """
        name = text(type, 128)
        try:
            entry, said = encoding.custom(name, data, self._settings)
        except (Invalid, TooLarge) as error:
            self._reporter.complaints.add(f"publish {name}", f"an event of type {brief(name)} was left out: {error}")
            return
        self._reporter.publish(entry)
        if said:
            self._reporter.complaints.add(f"publish {name}", said)

    def succeed(self, result: object = None) -> None:
        """End the operation as succeeded. Of several ends the first one counts.

        A result of more than `PROGRESS_MAX_EVENT_BYTES` is left out.
        """
        if self._reporter.ended:
            return
        entry, said = encoding.succeeded(result, self._settings)
        if said:
            self._reporter.complaints.add("result", said)
        self._reporter.end(entry)

    def fail(self, error: BaseException | str) -> None:
        """End the operation as failed, with an exception's type and message; as cancelled if it means that."""
        if self._reporter.ended:
            return
        stop = self._reporter.sign.stop
        self._reporter.end(encoding.failed(error, self._settings, stop.reason if stop else None))

    def retry_in(self, delay_s: float, error: BaseException | str | None = None) -> None:
        """Let the operation go without an end: this attempt gave up, and another follows within `delay_s` seconds.

        The log says so, and the lease is held open so long. Leaving the block then ends nothing.
        """
        held_s = min(MAX_DELAY_S, max(0.0, number(delay_s) or 0.0))
        self._reporter.retry_in(held_s, encoding.given_up(error, held_s, self.attempt))

    def _leave(self, error: BaseException | None) -> None:
        # A forked child that leaves the block it was born in does not end its parent's work.
        if not self._ends or self._reporter.ended or os.getpid() != self._pid:
            return
        if error is None or exited_well(error):
            self.succeed()
        else:
            if is_cancellation(error):
                self._reporter.sign.ask(Stop())  # what else works for it, a command or a thread, is to hear too
            self.fail(error)

    def _left(self, error: BaseException | None, flushed: bool) -> None:
        if not self._ends:
            self._reporter.release()
            self.trace.end(None)
        if not flushed and not self._reporter.dropped:  # of which the log has told
            logger.warning("the last of operation %s is not stored yet; it is sent when Redis takes it", self.id)
        if error is None and self._reporter.lost is not None:
            raise self._reporter.lost

    def _flush(self, timeout: float) -> bool:
        return self._link.flush([self._reporter], timeout)
