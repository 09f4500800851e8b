"""Whether there is something new to tell, said by any thread without a lock."""

from collections.abc import Callable
from threading import RLock


class Pulse:
    """Whether something changed since the reporter last looked, and the lock for all that is not counting.

    `complain(subject, warning)` is called for values that can't be taken.

    `dirty` is cleared *before* the state is read and looked at *after* it is changed, so a change is either read
    or announced, with no lock between the two.
    """

    __slots__ = ("_wake", "complain", "dirty", "lock")

    def __init__(self, wake: Callable[[], None], complain: Callable[[str, str], None] = lambda *_: None) -> None:
        self._wake, self.complain = wake, complain
        self.dirty = False
        # Reentrant, as a signal handler may report in the middle of another report.
        self.lock = RLock()

    def touch(self) -> None:
        """Say that something changed."""
        if not self.dirty:
            self.dirty = True
            self._wake()

    def wake(self) -> None:
        """Have the reporter looked at, though no progress was made."""
        self._wake()
