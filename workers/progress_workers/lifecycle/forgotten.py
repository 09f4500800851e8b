"""Warns about operations that nobody ended."""

import logging
import os
import weakref
from typing import Any

from progress_workers.core.reporter import Reporter

logger = logging.getLogger(__name__)


class Blocks:
    """How many blocks of one operation are entered. The interpreter closes such a block when it shuts down."""

    def __init__(self) -> None:
        self.entered = 0


def watch(operation: Any, reporter: Reporter, *, ends: bool) -> Blocks:
    """Warn if an operation is garbage-collected, or the process ends, before anybody here has reported its end.

    Nothing is said if nothing was reported: then it was only created here, and another process works on it.
    """
    blocks = Blocks()
    # The heartbeats stop too: its lease has to expire.
    weakref.finalize(operation, _dropped, reporter, blocks, reporter.outbox.newest, ends, os.getpid())
    return blocks


def _dropped(reporter: Reporter, blocks: Blocks, before: int, ends: bool, pid: int) -> None:
    reporter.release()
    if blocks.entered or reporter.ended or reporter.lost is not None or pid != os.getpid():
        return
    if ends and reporter.outbox.newest > before:
        logger.warning(
            "operation %s was never ended, so people see it as running until its lease expires: use it in a `with`"
            " block, or call `succeed` or `fail`; if another process ends it, attach it with end_on_exit=False",
            reporter.operation,
        )
