"""Waking a thread that waits, without a lock."""

from math import inf
from queue import Empty, SimpleQueue


class Wakeup:
    """Wakes the one thread that waits for it. A wakeup that comes while nobody waits is kept until it is cleared.

    `threading.Event` has a lock: a daemon thread that stops with the interpreter while it has the lock keeps it for
    ever. A `SimpleQueue` has none, and a signal handler or the garbage collector may put to it at any moment.
    """

    def __init__(self) -> None:
        self._tokens: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Wake the thread."""
        self._tokens.put(None)

    def wait(self, timeout_s: float = inf) -> bool:
        """Wait until it is set, for at most `timeout_s` seconds; return whether it was."""
        try:
            self._tokens.get(timeout=None if timeout_s == inf else max(0.0, timeout_s))
        except Empty:
            return False
        return True

    def clear(self) -> None:
        """Forget what came so far. Call it before reading what may have changed: later changes end the next wait."""
        for _ in range(self._tokens.qsize()):
            self._tokens.get()
