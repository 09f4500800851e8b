"""Signals that a process gets while it runs a command for somebody, handed on to that command."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from progress_workers.processes.child import Child

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What asks for the end. How soon it comes is up to the command."""
_PASSING = (signal.SIGTSTP, signal.SIGCONT)


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end; `reason` is its name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reason = signal.Signals(number).name
        super().__init__(self.reason)


class Relay:
    """Takes our signals: until there is a command they end us, by `Interrupted`, and from then on reach it."""

    def __init__(self) -> None:
        self.interrupted: Interrupted | None = None
        """The first that asked for the end."""
        self._child: Child | None = None
        self._holding = False

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Take them until the block is left; but not what whoever started us wants ignored, as `nohup` does."""
        relay = cls()
        heard = [number for number in (*ENDING, *_PASSING) if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, relay._heard) for number in heard}
        try:
            yield relay
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hold(self) -> None:
        """Keep what comes, for a child that is about to be: in between, nobody would look after it."""
        self._holding = True

    def pass_to(self, child: Child) -> None:
        """Hand on what has come and what comes."""
        self._child = child
        if self.interrupted is not None:
            child.signal(self.interrupted.number)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number in ENDING:
            self.interrupted = self.interrupted or Interrupted(number)
            if not self._holding:
                raise self.interrupted
        if self._child is not None:
            self._child.signal(number)
