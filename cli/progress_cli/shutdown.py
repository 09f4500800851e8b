"""Shutdown: Ctrl-C, SIGTERM or a closed terminal end the work in order, once."""

import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AGAIN_S = 0.01
"""When a signal is repeated whose exception got lost."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run the block until it ends or a signal stops it. A signal raises an exception, so that all resources are closed.

    After the first signal, others are ignored: the rest of the shutdown is short, and must clean up everything.
    """
    before = {each: signal.getsignal(each) for each in SIGNALS}
    stopping = _Stopping()
    try:
        stopping.listen()
        yield
    except Stopped:
        pass
    finally:
        stopping.over = True
        for each, handler in before.items():
            signal.signal(each, handler)


class _Stopping:
    """Handles the signals of one block."""

    def __init__(self) -> None:
        self.over = False
        self._raised: weakref.ref[Stopped] | None = None

    def listen(self) -> None:
        """Handle the next signal."""
        for each in SIGNALS:
            signal.signal(each, _hang_up if each == signal.SIGHUP else self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        stopped = Stopped()
        self._raised = weakref.ref(stopped, lambda _: self._dropped(number))
        try:
            raise stopped
        finally:
            del stopped  # else its own traceback would keep it

    def _dropped(self, number: int) -> None:
        """Repeat a signal whose exception has not ended the block.

        It is raised wherever the program is. In a `__del__`, for example, Python prints it and goes on.
        """
        if self.over:
            return
        self.listen()
        # An exception that is raised here would be lost as well.
        signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


def _hang_up(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)  # a serving server handles this signal properly
