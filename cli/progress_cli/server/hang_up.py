"""SIGHUP: a server reads its settings again. If its terminal was closed, which sends the same signal, it stops."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def hang_up_reloads(reload: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """Call `reload` in the event loop at each SIGHUP, or `stop` if this process had a terminal, which has gone."""
    loop, before, had_terminal = asyncio.get_running_loop(), signal.getsignal(signal.SIGHUP), _has_terminal()
    if before is signal.SIG_IGN:  # as with nohup
        yield
        return

    def hang_up() -> None:
        if had_terminal and not _has_terminal():
            stop()
        else:
            reload()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
