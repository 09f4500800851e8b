"""Being told to stop: Ctrl-C, SIGTERM or a closed terminal end the work in order, once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """Somebody told this process to stop."""


@contextmanager
def until_stopped() -> Iterator[None]:
    """Run the block until it ends, or a signal ends it: by an exception, so that all it opened is closed.

    From the first signal on, others are ignored: what is left to do is short, and leaves nothing behind.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    def hang_up(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGTERM)  # which the server, while it serves, takes as it should be taken

    before = {each: signal.signal(each, hang_up if each == signal.SIGHUP else stop) for each in SIGNALS}
    try:
        yield
    except Stopped:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
