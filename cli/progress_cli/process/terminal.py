"""The terminal a command was started from, which it gets once it wants to read from it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

from progress_workers.processes.child import Child


class Terminal:
    """Our terminal, while a command runs in a group of its own: the kernel stops who reads without having it.

    As long as the command does not want it, Ctrl-C and Ctrl-Z reach us. Once it has it, they are the command's.
    """

    def __init__(self, descriptor: int) -> None:
        self.lent_to: int | None = None
        """The group that has got it."""
        self._descriptor = descriptor

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self | None]:
        """Yield the terminal, or None if there is none; take it back in the end. To be used in the main thread."""
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
        """Take care of a command that was stopped: give it the terminal, or let whoever stopped it stop us, too."""
        us, group, wanted = os.getpgrp(), child.pid, number in (signal.SIGTTIN, signal.SIGTTOU)
        # It may have been continued and stopped again, before it was given what it wants by now.
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
        # Who does this from another group than the one in front is stopped, unless it blocks that.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            with suppress(OSError):  # the terminal is gone, or the group
                os.tcsetpgrp(self._descriptor, group)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _is_of(self, group: int) -> bool:
        try:
            return os.tcgetpgrp(self._descriptor) == group
        except OSError:
            return False


def _suspend() -> None:
    """Stop our whole group, as Ctrl-Z would have; return when it is continued, or was not to be stopped."""
    before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.killpg(os.getpgrp(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, before)
