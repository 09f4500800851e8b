"""The links of this process: one for each set of settings, so usually one; a Redis that is away can't hold up another.

It also has them flushed when the process ends, and begin anew in a forked child.
"""

import atexit
import logging
import os
import sys
import time
from threading import RLock

from progress_broker.settings import Settings
from progress_workers.transport.connection import FLUSH_S, Link

logger = logging.getLogger(__name__)

_links: dict[Settings, Link] = {}
_linking = RLock()

stand_ins: list[Link] = []
"""Links that take the place of every Redis, the last one first: a test's, that records what would be sent."""


def link_to(settings: Settings) -> Link:
    """Return the link to the Redis of these settings."""
    if stand_ins:
        return stand_ins[-1]
    with _linking:
        link = _links.get(settings)
        if link is None:
            link = _links.setdefault(settings, Link(settings))
        return link


def flush(timeout: float = FLUSH_S) -> bool:
    """Wait until all that this process has reported so far is stored; return whether it was, within `timeout` seconds.

    It was not if an operation was deleted, or lost with the Redis that had it; this is told once of each.
    Leaving an operation's block and leaving the process do this by themselves; who ends by `os._exit` has to call it.
    """
    stored = _flush(timeout)
    dropped = [link.tell_dropped() for link in list(_links.values())]
    return stored and not any(dropped)


def _flush(timeout: float) -> bool:
    until = time.monotonic() + timeout
    stored = [link.flush(timeout_s=max(0.0, until - time.monotonic())) for link in list(_links.values())]
    return all(stored)


def _reborn() -> None:
    global _linking
    _linking = RLock()  # another thread of the parent may have held it
    for link in _links.values():
        link.reborn()
    # A forked child of `multiprocessing` ends by os._exit, past atexit; what it has instead is set up later than this.
    children = sys.modules.get("multiprocessing.util")
    if children is not None:
        children.register_after_fork(flush, lambda _: children.Finalize(None, _flush_at_exit, exitpriority=0))


def _flush_at_exit() -> None:
    # Without those that were lost before, of which the log has told.
    if not _flush(max((link.patience_s() for link in _links.values()), default=0.0)):
        logger.warning("progress that was reported last could not be sent before the process ended")


os.register_at_fork(after_in_child=_reborn)
atexit.register(_flush_at_exit)
