"""A background thread that serves all operations of this process."""

import sys
from collections.abc import Callable
from threading import Lock, Thread, current_thread


class Background:
    """A daemon thread. It starts when it is needed, and restarts if it died.

    It shares no locks with other threads, only dicts, whose operations are atomic, and `Wakeup`. This is because daemon
    threads stop at any point when the interpreter shuts down. A lock that such a thread holds is never released, so a
    block that is closed later would wait for it forever.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._name, self._run = name, run
        self._starting = Lock()
        self._thread: Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the thread runs or is being started. During the interpreter's shutdown it does not run."""
        return not sys.is_finalizing() and (self._starting.locked() or self._alive())

    @property
    def is_current_thread(self) -> bool:
        """Whether the current thread is this one."""
        return current_thread() is self._thread

    def start(self) -> None:
        """Start the thread, unless the interpreter is shutting down."""
        # Non-blocking: a signal handler may interrupt this very code. The holder of the lock starts the thread.
        if sys.is_finalizing() or self._alive() or not self._starting.acquire(blocking=False):
            return
        try:
            if not self._alive():
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        except RuntimeError:  # the interpreter is shutting down and starts no more threads
            self._thread = None
        finally:
            self._starting.release()

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()
