"""Forwards signals that this process receives to the command that it runs."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from progress_workers.processes.child import Child

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that request the end. The command decides how soon it ends."""
_PASSING = (signal.SIGTSTP, signal.SIGCONT)


class Interrupted(KeyboardInterrupt):
    """A signal requested the end; `reason` is the signal's name."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reason = signal.Signals(number).name
        super().__init__(self.reason)


class Relay:
    """Handles our signals: before the command starts, they end this process by `Interrupted`; later, it gets them."""

    def __init__(self) -> None:
        self.interrupted: Interrupted | None = None
        """The first signal that requested the end."""
        self._child: Child | None = None
        self._keeps_signals = False

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Handle signals until the block is left. Signals that are ignored on entry, as under `nohup`, stay ignored."""
        relay = cls()
        heard = [number for number in (*ENDING, *_PASSING) if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, relay._heard) for number in heard}
        try:
            yield relay
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def keep_signals(self) -> None:
        """Keep signals for a child that is about to start: before that, nothing would receive them."""
        self._keeps_signals = True

    def pass_to(self, child: Child) -> None:
        """Forward the kept signal and all later ones."""
        self._child = child
        if self.interrupted is not None:
            child.signal(self.interrupted.number)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if number in ENDING:
            self.interrupted = self.interrupted or Interrupted(number)
            if not self._keeps_signals:
                raise self.interrupted
        if self._child is not None:
            self._child.signal(number)
