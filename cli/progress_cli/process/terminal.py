"""The terminal from which a command was started. The command gets it when it wants to read from it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from progress_workers.processes.child import Child


class Terminal:
    """Our terminal, while a command runs in its own process group. The kernel stops a background process that reads.

    Until the command wants the terminal, Ctrl-C and Ctrl-Z reach this process. After that, they reach the command.
    """

    def __init__(self, descriptor: int) -> None:
        self.lent_to: int | None = None
        """The process group that has the terminal."""
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self | None]:
        """Yield the terminal, or None if there is none. Take it back at the end. Use this in the main thread."""
        try:
            descriptor = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            yield None
            return
        try:
            terminal = cls(descriptor)
            yield terminal
            terminal._take_back()
        finally:
            os.close(descriptor)

    def stopped(self, child: Child, number: int) -> None:
        """Handle a stopped command: give it the terminal, or stop this process too if somebody stopped the command."""
        us, group, wanted = os.getpgrp(), child.pid, number in (signal.SIGTTIN, signal.SIGTTOU)
        # It may have been continued and stopped again before it got the terminal that it wants now.
        if not wanted or not (self._is_of(us) or self._is_of(group)):
            self._take_back()
            _suspend()
        if self._is_of(us) and (wanted or self.lent_to is not None):
            self.lent_to = group
            self._give(group)
        if self._is_of(us) or self._is_of(group):
            child.signal(signal.SIGCONT)

    def _take_back(self) -> None:
        if self.lent_to is not None and self._is_of(self.lent_to):
            self._give(os.getpgrp())

    def _give(self, group: int) -> None:
        # The kernel stops a background process that does this, unless it blocks SIGTTOU.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            with suppress(OSError):  # the terminal or the group no longer exists
                os.tcsetpgrp(self._descriptor, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _is_of(self, group: int) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == group
        except OSError:
            return False


def _suspend() -> None:
    """Stop our whole process group, as Ctrl-Z would. Return when it is continued, or if it can't be stopped."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.killpg(os.getpgrp(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, before)
