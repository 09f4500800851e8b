"""Has Python's handler of a signal run although the main thread waits.

Python takes note of a signal at once, but its main thread runs the handler between two steps of its own. If the signal
comes just before a call of C in which that thread waits, as for the next task of a pool, that may be never. So a thread
that `signal.set_wakeup_fd` tells of the signal sends it to the main thread again, which ends the wait.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

from progress_workers.transport.daemon import Background

FIRST_S, MOST_S = 0.05, 1.0
"""How long the main thread has to run the handler before the signal is sent again: at first, and at most."""


class SignalWatch:
    """Watches one signal, until its handler runs. `is_handled` says whether there is nothing to do any more."""

    def __init__(self, number: int, is_handled: Callable[[], bool]) -> None:
        self._number, self._is_handled = number, is_handled
        self._sending = threading.Lock()
        self._ended = False
        self._pipe: tuple[int, int] | None = None

    def start(self) -> None:
        """Begin, in the main thread, unless the program is told of signals itself, as a running event loop may be."""
        self._pipe = reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        if before == -1:
            Background("progress-sigterm", lambda: self._run(reading)).start()
        else:
            signal.set_wakeup_fd(before)
            self._close()

    def end(self) -> None:
        """Send the signal no more: its handler runs."""
        # With a bound: when the interpreter shuts down, the thread may stop while it has the lock.
        locked = self._sending.acquire(timeout=MOST_S)
        self._ended = True
        if locked:
            self._sending.release()

    def after_fork(self) -> None:
        """Let go of what belongs to the parent, which must not be told of the child's signals."""
        if self._pipe is not None:
            before = signal.set_wakeup_fd(-1)
            if before not in (-1, self._pipe[1]):
                signal.set_wakeup_fd(before)
            self._close()

    def _close(self) -> None:
        for descriptor in self._pipe or ():
            os.close(descriptor)
        self._pipe = None

    def _run(self, reading: int) -> None:
        while signals := os.read(reading, 512):
            if self._number in signals:
                self._send_until_handled()

    def _send_until_handled(self) -> None:
        wait_s = FIRST_S
        while not self._ended:
            time.sleep(wait_s)
            with self._sending:
                if self._ended or self._is_handled():
                    return
                signal.pthread_kill(threading.main_thread().ident or 0, self._number)
            wait_s = min(MOST_S, 2 * wait_s)
