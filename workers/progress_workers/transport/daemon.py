"""A thread in the background that serves all operations of this process."""

import sys
from collections.abc import Callable
from threading import Lock, Thread, current_thread


class Background:
    """A daemon thread, started when there is need of it, and again should it have died.

    What it shares with others has no locks, but dicts and queues that the interpreter keeps whole (`SimpleQueue` may
    even be put to while it is being put to, by a signal handler or the garbage collector). For when the interpreter
    ends, this thread stops wherever it is, and what it holds stays held: a block that is closed later would wait for
    it without end.
    """

    def __init__(self, name: str, run: Callable[[], None]) -> None:
        self._name, self._run = name, run
        self._starting = Lock()
        self._thread: Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it runs, or is being started. While the interpreter shuts down it does not."""
        return not sys.is_finalizing() and (self._starting.locked() or self._alive())

    @property
    def here(self) -> bool:
        """Whether this code is run by it."""
        return current_thread() is self._thread

    def start(self) -> None:
        """Have it run, if that is still possible."""
        # Not waited for: a signal handler may be here in the middle of it. Who holds it starts the thread.
        if sys.is_finalizing() or self._alive() or not self._starting.acquire(blocking=False):
            return
        try:
            if not self._alive():
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        except RuntimeError:  # the interpreter begins to shut down, and starts no more threads
            self._thread = None
        finally:
            self._starting.release()

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()
