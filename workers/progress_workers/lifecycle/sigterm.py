"""Ends the operations of a process that is asked to terminate (SIGTERM), before it does so."""

import os
import signal
import threading
import weakref
from contextlib import suppress
from types import FrameType

from progress_broker.settings import Settings
from progress_workers.core import encoding
from progress_workers.core.reporter import Reporter
from progress_workers.errors import CancelInfo, Cancelled
from progress_workers.lifecycle.handle import Handle
from progress_workers.transport import registry

FLUSH_S = 2.0
"""How long a process that is asked to terminate waits until everything it reported is stored."""
_REASON = "its process was asked to terminate (SIGTERM)"


class Terminated(Exception):
    """The process was asked to terminate, and that means that the work failed."""

    error_type = "terminated"


_open: weakref.WeakKeyDictionary[Reporter, tuple[Settings, int]] = weakref.WeakKeyDictionary()
"""The operations to end, each with the process that started it."""


def end_on_sigterm(opened: Handle) -> None:
    """End an operation when this process gets SIGTERM. Only send its reports if another process ends it, or it is left
    open for a next attempt.

    Only the default handler is replaced, which ends the process at once. A program's own handler stays, and decides.
    """
    if not opened.end_on_sigterm or opened.settings.disabled:
        return
    if opened.end_on_exit and opened.settings.on_sigterm != "leave":
        _open[opened.reporter] = opened.settings, os.getpid()
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with suppress(ValueError):  # in a subinterpreter
            signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends the process at once
    try:
        for reporter, (settings, pid) in list(_open.items()):
            if pid == os.getpid() and not reporter.ended:  # a forked child must not end what its parent works on
                fails = settings.on_sigterm == "fail"
                stopped = Terminated(_REASON) if fails else Cancelled(reporter.operation, _REASON)
                reporter.end(encoding.failed(stopped, settings))
                reporter.cancellation.request(CancelInfo(_REASON))
        registry.flush_within(FLUSH_S)
    finally:
        signal.raise_signal(number)
        os._exit(128 + number)  # the first process of a container is not ended by a signal that has no handler
