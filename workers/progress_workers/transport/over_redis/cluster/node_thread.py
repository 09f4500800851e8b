"""A thread that sends to one node, so that those who wait for other nodes need not wait for this one."""

import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from progress_workers.core.wakeup import Wakeup
from progress_workers.transport.daemon import Background

PATIENCE_S = 0.25
"""How long callers wait for a node at least, when they also wait for others."""
_FIRST_S = 1.0
"""How long at first, while connections are made."""
_SLOWER = 2.0
"""How much longer than the last time a node may take."""


class Work:
    """Something to do for a node: a call, and how it ended."""

    def __init__(self, call: Callable[[], Any], over: Wakeup) -> None:
        self._call, self._over = call, over
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        """Do it, and wake who waits."""
        try:
            self.result = self._call()
        except Exception as error:
            self.error = error
        self.done = True
        self._over.set()


class NodeThread:
    """A thread that starts when it is needed. While what it does is late, it takes nothing else."""

    def __init__(self, name: str) -> None:
        self._waiting: SimpleQueue[Work | None] = SimpleQueue()
        self._thread = Background(name, self._run)
        self._late: Work | None = None
        self.patience_s = _FIRST_S
        """How long to wait for an answer: longer for a node that is slow, and answers all the same."""

    @property
    def late(self) -> bool:
        """Whether what was to be done is not done yet, and nobody waits for it any more."""
        return self._late is not None and not self._late.done

    def submit(self, work: Work) -> bool:
        """Have work done. Return False if no thread can be started any more: the interpreter is shutting down."""
        self._waiting.put(work)
        self._thread.start()
        return self._thread.running

    def give_up(self, work: Work) -> None:
        """Wait for work no longer."""
        self._late = work

    def end(self) -> None:
        """Have the thread end when all is done."""
        self._waiting.put(None)

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            began = time.monotonic()
            work.run()
            self.patience_s = max(PATIENCE_S, min(_FIRST_S, _SLOWER * (time.monotonic() - began)))
