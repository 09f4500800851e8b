"""Warns about operations that nobody ended."""

import logging
import os
import weakref
from typing import Any

from progress_workers.core.reporter import Reporter

logger = logging.getLogger(__name__)


class Blocks:
    """How many blocks of one operation are entered. A block that is entered ends its operation, however late."""

    def __init__(self) -> None:
        self.entered = 0


def watch(operation: Any, reporter: Reporter, *, ends: bool) -> Blocks:
    """Warn if an operation is garbage-collected, or the process ends, before anybody has reported its end."""
    blocks = Blocks()
    # The heartbeats stop too: its lease has to expire.
    weakref.finalize(operation, _dropped, reporter, blocks, ends, os.getpid())
    return blocks


def _dropped(reporter: Reporter, blocks: Blocks, ends: bool, pid: int) -> None:
    if blocks.entered:
        return  # the interpreter closes this block when it shuts down
    reporter.release()
    if ends and not reporter.ended and reporter.lost is None and pid == os.getpid():
        logger.warning(
            "operation %s was never ended, so people see it as running until its lease expires: use it in a `with`"
            " block, or call `succeed` or `fail`; if another process ends it, attach it with end_on_exit=False",
            reporter.operation,
        )
