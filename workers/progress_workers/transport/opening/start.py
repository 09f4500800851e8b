"""Opens operations while their callers wait, which is for a moment only: reporting must not hold up the work."""

import contextvars
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

from progress_broker.errors import InvalidInput, OperationEnded
from progress_broker.model.operation import Status
from progress_workers.core.reporter import Reporter
from progress_workers.errors import Cancelled
from progress_workers.transport.answers import checked_answer
from progress_workers.transport.carrier import Carrier
from progress_workers.transport.opening.operation import check_open, open_operation

OPEN_S = 1.0
"""How long a start waits for the broker. After that, the work goes on, and the operation is created later."""
FRESH_S = 0.1
"""How long after an answer a start needs no thread, which costs much on a busy machine: the next answer is almost sure.
If the broker falls silent in just this time, one start waits for the timeout of the connection."""


def open_now(carrier: Carrier, reporter: Reporter) -> None:
    """Open a reporter's operation and send its first reports, such as that it is running. Raise what went wrong."""
    opening = reporter.opening
    if opening is None:
        return
    reporter.opened(open_operation(carrier, opening))
    try:
        _send_first(carrier, reporter)
    except (InvalidInput, OperationEnded):
        # It changed since it was read. If it was cancelled, `running` is rejected; the worker must see the cancel.
        state = carrier.view(reporter.operation)
        if state.status is Status.CANCELLED and opening.new is not None:
            raise Cancelled(reporter.operation) from None  # most likely together with its parent
        check_open(carrier, opening, state)
        reporter.opened(state)
        reporter.outbox.leave_out("status")
        _send_first(carrier, reporter)


def _send_first(carrier: Carrier, reporter: Reporter) -> None:
    batch = reporter.batch(time.monotonic())
    if batch is not None:
        (answer,) = carrier.publish([batch])
        reporter.acknowledged(checked_answer(answer))


class Start:
    """One start: a thread makes it, as sockets and name servers may take any time, and its caller waits for a moment.

    The reporter belongs to the thread until `over` is called, from the thread. It is called with the error, if there
    was one, and whether the caller still waits. What it returns is what the caller raises.
    """

    def __init__(
        self, carrier: Carrier, reporter: Reporter, over: Callable[[Exception | None, bool], Exception | None]
    ) -> None:
        self._carrier, self._reporter, self._over = carrier, reporter, over
        self._undecided = [None]  # whoever pops it first decides whether the caller has left: `pop` is atomic
        self.error: Exception | None = None
        self._result: SimpleQueue[Exception | None] = SimpleQueue()

    def wait(self, timeout_s: float) -> bool:
        """Start it and wait. Return whether it is over within the time; then `error` is what it ended with."""
        context = contextvars.copy_context()  # for the trace
        try:
            Thread(target=context.run, args=(self._run,), name="progress-start", daemon=True).start()
        except RuntimeError:  # the interpreter is shutting down and starts no more threads
            self._run()
        try:
            self.error = self._result.get(timeout=timeout_s)
        except Empty:
            if self._leave():
                return False
            self.error = self._result.get()
        except BaseException:
            self._leave()
            raise
        return True

    def _leave(self) -> bool:
        try:
            self._undecided.pop()
        except IndexError:
            return False
        return True

    def _run(self) -> None:
        error: Exception | None = None
        try:
            open_now(self._carrier, self._reporter)
        except Exception as caught:
            error = caught
        awaited = self._leave()
        self._result.put(self._over(error, awaited))
