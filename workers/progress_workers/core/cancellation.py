"""Why the work should stop, and who wants to hear of it."""

import logging
from collections.abc import Callable
from contextlib import suppress

from progress_broker.errors import BrokerError
from progress_workers.core.inbox import Inbox
from progress_workers.core.progress.dirty import Pulse
from progress_workers.errors import Cancelled, Stop

logger = logging.getLogger(__name__)


class StopSign:
    """Stands once somebody asked the work to stop, or the operation is no longer this process's to report."""

    def __init__(self, operation: str, pulse: Pulse, inbox: Inbox) -> None:
        self._operation, self._pulse, self._inbox = operation, pulse, inbox
        self._callbacks: list[Callable[[Exception], None]] = []
        self.stop: Stop | None = None
        self.lost: BrokerError | None = None

    def error(self) -> Exception | None:
        """Return what tells the work to stop, None while it may go on."""
        if self.lost is not None:
            return self.lost
        return None if self.stop is None else Cancelled(self._operation, *self.stop)

    def ask(self, stop: Stop) -> None:
        """Note that someone asked."""
        if self.stop is None:
            self.stop = stop
            self._tell()

    def lose(self, error: BrokerError) -> None:
        """Note that the operation is lost to this process."""
        if self.lost is None:
            self.lost = error
            self._tell()

    def on_stop(self, callback: Callable[[Exception], None]) -> Callable[[], None]:
        """Call back once, as soon as `error` has something to return; return what takes it back."""
        with self._pulse.lock:
            error = self.error()
            if error is None:
                self._callbacks.append(callback)
        if error is not None:
            self._call(callback, error)
        return lambda: self._forget(callback)

    def _forget(self, callback: Callable[[Exception], None]) -> None:
        with self._pulse.lock, suppress(ValueError):
            self._callbacks.remove(callback)

    def _tell(self) -> None:
        with self._pulse.lock:
            callbacks, self._callbacks = self._callbacks, []
            error = self.error()
        self._inbox.close()
        for callback in callbacks:
            try:
                self._call(callback, error)
            except BaseException:  # a thread that serves all operations runs it, which must survive even a sys.exit
                logger.exception("what was to be called at the cancel of operation %s failed", self._operation)

    def _call(self, callback: Callable[[Exception], None], error: Exception | None) -> None:
        try:
            callback(error)  # type: ignore[arg-type]
        except Exception:
            logger.exception("what was to be called at the cancel of operation %s failed", self._operation)
