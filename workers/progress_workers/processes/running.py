"""A command from its start to its end: one loop that carries its output, and ends it when that is asked for."""

import select
import signal
from collections.abc import Sequence
from math import ceil, inf
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from progress_broker.errors import Invalid
from progress_workers.processes.child import Child, Place
from progress_workers.processes.output import Output
from progress_workers.processes.stream import Stream
from progress_workers.processes.wake import Wake

GRACE_S = 10.0
"""How long a command that was asked to end may take before it is killed."""
LEFT_OPEN_S = 0.5
"""How long others may hold the outputs open after the command's end; then we go, and what they still say is lost."""
QUIET_S = 0.1
"""How long an unfinished line is left alone before it is taken for what it says."""
LOOK_S = 0.05
"""How often it is seen whether all in the group have ended; nothing tells of that."""
_LONGEST_S = 3600.0


class StoppedChild(Protocol):
    """What takes care of a child that was stopped, as by Ctrl-Z."""

    def stopped(self, child: Child, number: int) -> None:
        """Take care of it; the signal `number` has stopped it."""


class Running:
    """A command that runs: `with Running(…) as running: code = running.finish()`. Left early, it is ended.

    `outputs` and `copy_to` are for its stdout and stderr, or one of each if the place has the two in one.
    """

    def __init__(
        self,
        command: Sequence[str],
        outputs: Sequence[Output],
        *,
        place: Place,
        grace_s: float = GRACE_S,
        copy_to: Sequence[int | None] = (None, None),
    ) -> None:
        if not (isinstance(grace_s, int | float) and grace_s >= 0):
            raise Invalid(f"grace_s is a number of seconds from 0 up, not {grace_s!r}", field="grace_s")
        self.stopped_for: BaseException | None = None
        """Why it was asked to end, if it was."""
        self.terminal: StoppedChild | None = None
        self._grace_s, self._outputs = grace_s, outputs
        self._stop: BaseException | None = None
        self._group_awaited = False
        self._kill_at = self._leave_at = self._look_at = inf
        self._wake = Wake()
        try:
            self.child = Child(command, place, self._wake.call)
        except BaseException:
            self._wake.close()
            raise
        pipes = zip(self.child.outputs, outputs, copy_to, strict=True)
        self._streams = [Stream(pipe, output, copy) for pipe, output, copy in pipes]

    @property
    def copy_errors(self) -> tuple[OSError | None, ...]:
        """Why a copy of each of its outputs is not whole, where it is for another reason than that its reader left."""
        return tuple(stream.copy_error for stream in self._streams)

    def stop(self, reason: BaseException) -> None:
        """Have it end, from any thread: SIGTERM to its group, and SIGKILL after the grace. Has it ended, never mind."""
        self._stop = self._stop or reason
        self._wake.call()

    def finish(self) -> int:
        """Carry its output until it has ended; return its exit code, or the number of what killed it below zero."""
        while (code := self._result()) is None:
            self._wait()
            self._attend(monotonic())
        for stream in self._streams:
            stream.close()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is not None:
                self._end(error)
        except BaseException:  # asked again, as by a second Ctrl-C
            self.child.signal(signal.SIGKILL)
            raise
        finally:
            self.child.close()
            self._wake.close()

    def _end(self, error: BaseException) -> None:
        for output in self._outputs:
            output.mute()
        self.stop(error)
        self.finish()

    def _result(self) -> int | None:
        """Return what it ended with, once it has, and nothing is to be awaited any more."""
        if self._leave_at == inf or (self._group_awaited and self.child.group_lives()):
            return None
        if all(stream.wants is None for stream in self._streams):
            return self.child.returncode
        # Of one that was to end, nothing more is owed to whoever is slow to read it.
        drained = self.stopped_for is not None or all(stream.drained for stream in self._streams)
        return self.child.returncode if drained and monotonic() >= self._leave_at else None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        waiting = [(wants[0], stream) for stream in self._streams if (wants := stream.wants)]
        for _, stream in waiting:
            poll.register(*(stream.wants or ()))
        ready = {descriptor for descriptor, _ in poll.poll(self._timeout_ms())}
        for descriptor, stream in waiting:
            if descriptor in ready:
                stream.go_on()
                self._look_at = monotonic() + QUIET_S

    def _timeout_ms(self) -> int | None:
        now = monotonic()
        times = [self._kill_at, self._look_at]
        if self._leave_at > now:
            times.append(self._leave_at)
        if self._group_awaited and self._leave_at < inf:
            times.append(now + LOOK_S)
        first = min(times)
        return None if first == inf else ceil(1000 * min(max(0.0, first - now), _LONGEST_S))

    def _attend(self, now: float) -> None:
        """Do what it is time for."""
        self._wake.heard()
        number, self.child.stopped_by = self.child.stopped_by, None
        if number is not None and self.terminal is not None:
            self.terminal.stopped(self.child, number)
        if self._leave_at == inf and self.child.returncode is not None:
            self._leave_at = now + LEFT_OPEN_S
            for stream in self._streams:
                stream.command_ended()
        self._press(now)
        if now >= self._look_at:
            self._look_at = inf
            for output in self._outputs:
                output.look()

    def _press(self, now: float) -> None:
        """Ask it to end, if it is to, and kill it if it does not."""
        if self._stop is not None and self.stopped_for is None and self._leave_at == inf:
            self.stopped_for, self._group_awaited, self._kill_at = self._stop, True, now + self._grace_s
            self.child.ask_to_end()
        if now >= self._kill_at:
            self._kill_at, self._group_awaited = inf, False
            self.child.signal(signal.SIGKILL)
