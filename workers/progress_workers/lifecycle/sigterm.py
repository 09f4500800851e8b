"""Ends the operations of a process that is asked to terminate (SIGTERM), before it does so."""

import os
import signal
import sys
import threading
import weakref
from contextlib import suppress
from types import FrameType

from progress_broker.settings import Settings
from progress_workers.core import encoding
from progress_workers.core.reporter import Reporter
from progress_workers.errors import CancelInfo, Cancelled
from progress_workers.lifecycle.handle import Handle
from progress_workers.lifecycle.signal_watch import SignalWatch
from progress_workers.transport import registry

FLUSH_S = 2.0
"""How long a process that is asked to terminate waits until everything it reported is stored."""
_REASON = "its process was asked to terminate (SIGTERM)"


class Terminated(Exception):
    """The process was asked to terminate, and that means that the work failed."""

    error_type = "terminated"


_open: weakref.WeakKeyDictionary[Reporter, tuple[Settings, int]] = weakref.WeakKeyDictionary()
"""The operations to end, each with the process that started it."""
_watch: SignalWatch | None = None
_forked = _parent_handles = False
_forking = threading.local()


def end_on_sigterm(opened: Handle) -> None:
    """End an operation when this process gets SIGTERM. Only send its reports if another process ends it, or it is left
    open for a next attempt.

    Only the default handler is replaced, which ends the process at once. A program's own handler stays, and decides.
    """
    if not opened.end_on_sigterm or opened.settings.disabled:
        return
    if opened.end_on_exit and opened.settings.on_sigterm != "leave":
        _open[opened.reporter] = opened.settings, os.getpid()
    _handle()


def _handle() -> None:
    global _watch, _parent_handles
    if threading.current_thread() is not threading.main_thread():
        return
    _parent_handles = False
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    with suppress(ValueError):  # in a subinterpreter
        signal.signal(signal.SIGTERM, _terminate)
        if _is_child():  # a pool terminates its processes while they wait for work
            _watch = SignalWatch(signal.SIGTERM, lambda: signal.getsignal(signal.SIGTERM) is not _terminate)
            _watch.start()


def _is_child() -> bool:
    processes = sys.modules.get("multiprocessing.process")
    return _forked or (processes is not None and processes.parent_process() is not None)


def _terminate(number: int, frame: FrameType | None) -> None:
    if _watch is not None:
        _watch.end()
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


def _before_fork() -> None:
    """Block SIGTERM, which a child would lose that gets it before `_after_fork_in_child`: Python forgets it there."""
    if signal.getsignal(signal.SIGTERM) is _terminate:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _unblock() -> None:
    mask = vars(_forking).pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    """Have SIGTERM end a forked child at once, until it reports."""
    global _watch, _forked, _parent_handles
    _forked = True
    if _watch is not None:
        _watch.after_fork()
        _watch = None
    if signal.getsignal(signal.SIGTERM) is _terminate:
        with suppress(ValueError):  # in a subinterpreter
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _parent_handles = True
    _unblock()


def _before_report() -> None:
    if _parent_handles:
        _handle()


os.register_at_fork(before=_before_fork, after_in_parent=_unblock, after_in_child=_after_fork_in_child)
registry.before_reports.append(_before_report)
