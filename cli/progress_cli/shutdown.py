"""Shutdown: Ctrl-C, SIGTERM or a closed terminal end the work in order, once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run the block until it ends or a signal stops it. A signal raises an exception, so that all resources are closed.

    After the first signal, others are ignored: the rest of the shutdown is short, and must clean up everything.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)  # a serving server handles this signal properly

    before = {each: signal.signal(each, hang_up if each == signal.SIGHUP else stop) for each in SIGNALS}
    try:
        yield
    except Stopped:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
