"""The links of this process: one per set of settings, so usually one. An unavailable broker can't delay another one.

This module also flushes the links when the process ends, and restarts them in a forked child.
"""

import atexit
import logging
import os
import sys
import time
from collections.abc import Callable
from threading import RLock

from progress_broker.settings import Settings
from progress_workers.transport.disabled import DisabledLink
from progress_workers.transport.link import FLUSH_S, Link

logger = logging.getLogger(__name__)

_links: dict[Settings, Link] = {}
_linking = RLock()

test_links: list[Link] = []
"""Links that replace every other; the last one is used. Tests use this to record what would be sent."""

before_reports: list[Callable[[], None]] = []
"""What is called before something is reported of an operation of which nothing waits to be sent, in any thread."""


def link_to(settings: Settings) -> Link:
    """Return the link to the broker of these settings."""
    if test_links:
        return test_links[-1]
    with _linking:
        link = _links.get(settings)
        if link is None:
            new = DisabledLink(settings) if settings.disabled else Link(settings, before_report=_before_report)
            link = _links.setdefault(settings, new)
        return link


def flush(timeout: float = FLUSH_S) -> bool:
    """Wait until everything this process has reported is stored. Return whether this happened within `timeout` seconds.

    It also returns False if an operation was deleted, or Redis lost it; each such loss is reported by one call only.
    Leaving an operation's block and ending the process flush automatically. Code that ends with `os._exit` must call
    this.
    """
    stored = flush_within(timeout)
    dropped = [link.tell_dropped() for link in list(_links.values())]
    return stored and not any(dropped)


def flush_within(timeout: float) -> bool:
    """Wait until everything is stored. Unlike `flush`, it ignores operations that were lost: their loss is logged."""
    until = time.monotonic() + timeout
    stored = [link.flush(timeout_s=max(0.0, until - time.monotonic())) for link in list(_links.values())]
    return all(stored)


def _before_report() -> None:
    for each in before_reports:
        each()


def _after_fork() -> None:
    global _linking
    _linking = RLock()  # another thread of the parent may hold the old one
    for link in _links.values():
        link.after_fork()
    # A forked `multiprocessing` child ends by os._exit, which skips atexit. Its finalizers are cleared after this hook.
    children = sys.modules.get("multiprocessing.util")
    if children is not None:
        children.register_after_fork(flush, lambda _: children.Finalize(None, _flush_at_exit, exitpriority=0))


def _flush_at_exit() -> None:
    if not flush_within(max((link.exit_timeout_s() for link in _links.values()), default=0.0)):
        logger.warning("this process ended before its last progress updates were sent; they are lost")


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_flush_at_exit)
