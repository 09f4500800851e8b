"""A flag that says whether there is something new to report; any thread sets it without a lock."""

from collections.abc import Callable
from threading import RLock


class DirtyFlag:
    """Whether something changed since the reporter last looked, and the lock for everything but counting.

    `warn(subject, warning)` is called for invalid values.

    `dirty` is cleared *before* the state is read, and set *after* the state is changed. So each change is either read
    or reported later, without a lock.
    """

    __slots__ = ("_wake", "dirty", "lock", "warn")

    def __init__(self, wake: Callable[[], None], warn: Callable[[str, str], None] = lambda *_: None) -> None:
        self._wake, self.warn = wake, warn
        self.dirty = False
        # Reentrant, because a signal handler may report in the middle of another report.
        self.lock = RLock()

    def mark_dirty(self) -> None:
        """Note that something changed."""
        if not self.dirty:
            self.dirty = True
            self._wake()

    def wake(self) -> None:
        """Wake the sender, although there is no new progress."""
        self._wake()
