"""The reason why work should stop, and the callbacks that are called when there is one."""

import logging
from collections.abc import Callable
from contextlib import suppress

from progress_broker.errors import BrokerError
from progress_workers.core.inbox import Inbox
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.errors import CancelInfo, Cancelled

logger = logging.getLogger(__name__)


class Cancellation:
    """Whether work should stop: because of a cancel, or because this process may no longer report the operation."""

    def __init__(self, operation: str, dirty_flag: DirtyFlag, inbox: Inbox) -> None:
        self._operation, self._dirty_flag, self._inbox = operation, dirty_flag, inbox
        self._callbacks: list[Callable[[Exception], None]] = []
        self.stop: CancelInfo | None = None
        self.lost: BrokerError | None = None

    def error(self) -> Exception | None:
        """Return the exception that stops the work; None while it may continue."""
        if self.lost is not None:
            return self.lost
        return None if self.stop is None else Cancelled(self._operation, *self.stop)

    def request(self, stop: CancelInfo) -> None:
        """Record a request to stop."""
        if self.stop is None:
            self.stop = stop
            self._notify()

    def lose(self, error: BrokerError) -> None:
        """Record that this process may no longer report the operation."""
        if self.lost is None:
            self.lost = error
            self._notify()

    def on_stop(self, callback: Callable[[Exception], None]) -> Callable[[], None]:
        """Call back once, as soon as `error` returns an exception. Return a function that removes the callback."""
        with self._dirty_flag.lock:
            error = self.error()
            if error is None:
                self._callbacks.append(callback)
        if error is not None:
            self._call(callback, error)
        return lambda: self._forget(callback)

    def _forget(self, callback: Callable[[Exception], None]) -> None:
        with self._dirty_flag.lock, suppress(ValueError):
            self._callbacks.remove(callback)

    def _notify(self) -> None:
        with self._dirty_flag.lock:
            callbacks, self._callbacks = self._callbacks, []
            error = self.error()
        self._inbox.close()
        for callback in callbacks:
            try:
                self._call(callback, error)
            except BaseException:  # the calling thread serves all operations and must survive even a sys.exit
                logger.exception("the cancel callback of operation %s failed", self._operation)

    def _call(self, callback: Callable[[Exception], None], error: Exception | None) -> None:
        try:
            callback(error)  # type: ignore[arg-type]
        except Exception:
            logger.exception("the cancel callback of operation %s failed", self._operation)
