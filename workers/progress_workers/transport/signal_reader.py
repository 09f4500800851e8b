"""The background thread that receives signals for all operations of this process."""

import logging
import time
from collections.abc import Callable

import orjson

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.operations.commands import read_cancel
from progress_broker.runtime.backoff import Backoff
from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_workers.core.inbox import Signal
from progress_workers.core.reporter import Reporter
from progress_workers.core.wakeup import Wakeup
from progress_workers.errors import CancelInfo
from progress_workers.transport.carrier import Carrier, Rewound
from progress_workers.transport.daemon import Background

logger = logging.getLogger(__name__)

_WAKE_PAUSES_S = (0.001, 0.004, 0.016, 0.064)
"""Pauses between attempts to wake the reader. After them, it notices the change when its wait ends by itself."""


class Signals:
    """Receives the signals for all operations of this process, in one thread, which sleeps while there are none.

    Each reporter gets the signals after its own last position, also if several reporters share an operation.
    """

    def __init__(self, carrier: Carrier, look: Callable[[Reporter], None]) -> None:
        self._carrier, self._look = carrier, look
        self._reporters: dict[Reporter, None] = {}
        self._wakeup = Wakeup()
        self._added = self._heard = 0
        """How many reporters were added, and how many of them the reader has seen."""
        self._to_wake: dict[Wakeup, None] = {}
        """The wakeups of callers that wait until the reader has seen the added reporters."""
        self._thread = Background("progress-signals", self._run)

    def add(self, reporter: Reporter) -> None:
        """Listen for an operation, from the beginning of its stream: a cancel may already be there. Does not block."""
        self._reporters.setdefault(reporter)
        self._added += 1
        self._wakeup.set()
        self._thread.start()

    def remove(self, reporter: Reporter) -> None:
        """Stop listening for an operation. This does not wake the reader: its next read leaves the operation out."""
        self._reporters.pop(reporter, None)

    def wake(self) -> None:
        """Make the reader include the added reporters now, if its wait can be ended."""
        wanted, seen = self._added, Wakeup()
        self._to_wake[seen] = None
        try:
            for pause_s in _WAKE_PAUSES_S:
                if self._heard >= wanted or not self._carrier.end_wait():
                    return
                seen.wait(pause_s)
        finally:
            self._to_wake.pop(seen, None)

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                while True:
                    listeners = self._listeners()
                    arrived = self._carrier.signals({name: _position(group) for name, group in listeners.items()})
                    if backoff.failing:
                        self._check_all()
                        backoff.succeeded()
                    for signal in arrived:
                        self._deliver(listeners[signal.operation], signal)
            except (StorageUnavailable, StorageFull) as error:
                logger.debug("signals could not be read; reading is retried: %s", error)
                if not backoff.failing:
                    self._check_all()
                time.sleep(max(backoff.failed(), error.retry_s or 0.0))
            except Exception:  # this thread serves all operations
                logger.exception("an unexpected error occurred while reading signals; reading is retried")
                time.sleep(backoff.failed())

    def _check_all(self) -> None:
        """Have a heartbeat sent for each: another server may answer now, which lacks what was stored."""
        for reporter in list(self._reporters):
            self._look(reporter)

    def _listeners(self) -> dict[str, list[Reporter]]:
        """Return the listeners of each operation, once there are any."""
        while True:
            # The order matters: a reporter that is added from now on wakes the next call.
            self._wakeup.clear()
            self._heard = self._added
            listeners: dict[str, list[Reporter]] = {}
            for reporter in list(self._reporters):
                listeners.setdefault(reporter.operation, []).append(reporter)
            for seen in list(self._to_wake):
                seen.set()
            if listeners:
                return listeners
            self._carrier.rest()
            self._wakeup.wait()

    def _deliver(self, reporters: list[Reporter], signal: ArrivedSignal | Rewound) -> None:
        for reporter in reporters:
            if isinstance(signal, Rewound):
                reporter.heard = min(reporter.heard, signal.position)
            elif signal.position > reporter.heard:
                reporter.heard = signal.position
                self._apply(reporter, signal)

    def _apply(self, reporter: Reporter, signal: ArrivedSignal) -> None:
        if reporter.superseded:
            return  # later signals are for the attempt that took over
        if signal.type == "cancel":
            cancel = read_cancel(signal.data)
            reporter.cancellation.request(CancelInfo(cancel.reason, cancel.by))
        elif signal.type == "changed":  # another attempt has begun, or the operation has ended
            reporter.superseded = signal.attempt > reporter.attempt
            self._look(reporter)
        else:
            reporter.inbox.put(Signal(signal.type, _data(signal), signal.by))


def _position(reporters: list[Reporter]) -> SignalPosition:
    return min(reporter.heard for reporter in reporters)


def _data(signal: ArrivedSignal) -> object:
    try:
        return orjson.loads(signal.data)
    except orjson.JSONDecodeError:
        return None  # other programs may send any data
