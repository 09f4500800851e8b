"""A command from its start to its end: one loop that forwards its output, and ends the command on request."""

import select
import signal
from collections.abc import Sequence
from math import ceil, inf
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

from progress_broker.errors import InvalidInput
from progress_workers.processes.child import Child, SpawnOptions
from progress_workers.processes.output import Output
from progress_workers.processes.stream import Stream
from progress_workers.processes.wake import Wake

GRACE_S = 10.0
"""How long a command may take to end after SIGTERM, before it is killed, in seconds."""
LEFT_OPEN_S = 0.5
"""How long other processes may keep the outputs open after the command's end; then their later output is lost."""
QUIET_S = 0.1
"""How long an unfinished line must stay unchanged before it is processed."""
LOOK_S = 0.05
"""How often the process group is checked for living processes; the system does not notify about this."""
_LONGEST_S = 3600.0


class StoppedChild(Protocol):
    """Handles a child that a signal stopped, for example by Ctrl-Z."""

    def stopped(self, child: Child, number: int) -> None:
        """Handle the stop; `number` is the signal that stopped the child."""


class Running:
    """A running command: `with Running(…) as running: code = running.finish()`. Leaving the block early ends it.

    `outputs` and `copy_to` have one entry each for stdout and stderr, or a single one if `place.in_one`.
    """

    def __init__(
        self,
        command: Sequence[str],
        outputs: Sequence[Output],
        *,
        place: SpawnOptions,
        grace_s: float = GRACE_S,
        copy_to: Sequence[int | None] = (None, None),
    ) -> None:
        if not (isinstance(grace_s, int | float) and grace_s >= 0):
            raise InvalidInput(f"grace_s must be a number of seconds, 0 or greater, not {grace_s!r}", field="grace_s")
        self.stopped_for: BaseException | None = None
        """Why it was asked to end; None if it was not."""
        self.terminal: StoppedChild | None = None
        self._grace_s, self._outputs = grace_s, outputs
        self._stop: BaseException | None = None
        self._group_awaited = False
        self._kill_at = self._leave_at = self._look_at = self._late_at = inf
        self._late: BaseException | None = None
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
        """Why the copy of each output is incomplete; None if it is complete, or if its reader closed the pipe."""
        return tuple(stream.copy_error for stream in self._streams)

    def stop(self, reason: BaseException) -> None:
        """End the command, from any thread: SIGTERM to its group, then SIGKILL after the grace time.

        If the command has already ended, this does nothing.
        """
        self._stop = self._stop or reason
        self._wake.call()

    def stop_after(self, timeout_s: float, reason: BaseException) -> None:
        """End the command, as `stop` does, if it still runs then."""
        self._late_at, self._late = monotonic() + timeout_s, reason

    def kill(self) -> None:
        """Kill the command and everything it started, from any thread."""
        if self._leave_at == inf:
            self.child.signal(signal.SIGKILL)

    def finish(self) -> int:
        """Forward its output until it has ended. Return its exit code, or the negative number of a signal."""
        while (code := self._result()) is None:
            self._wait()
            self._attend(monotonic())
        for stream in self._streams:
            stream.close()
        if code == 0 and self.stopped_for is None:
            for output in self._outputs:
                output.complete()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if error is not None:
                self._end(error)
        except BaseException:  # interrupted again, for example by a second Ctrl-C
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
        """Return its exit code, once it has ended and nothing remains to wait for."""
        if self._leave_at == inf or (self._group_awaited and self.child.group_lives()):
            return None
        if all(stream.wants is None for stream in self._streams):
            return self.child.returncode
        # After a requested end, the rest of the output does not wait for a slow reader.
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
        times = [self._kill_at, self._look_at, self._late_at]
        if self._leave_at > now:
            times.append(self._leave_at)
        if self._group_awaited and self._leave_at < inf:
            times.append(now + LOOK_S)
        first = min(times)
        return None if first == inf else ceil(1000 * min(max(0.0, first - now), _LONGEST_S))

    def _attend(self, now: float) -> None:
        """Do everything that is due."""
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
        """Ask it to end, if requested or if it is late, and kill it when the grace time is over."""
        if now >= self._late_at:
            self._late_at, self._stop = inf, self._stop or self._late
        if self._stop is not None and self.stopped_for is None and self._leave_at == inf:
            self.stopped_for, self._group_awaited, self._kill_at = self._stop, True, now + self._grace_s
            self.child.ask_to_end()
        if now >= self._kill_at:
            self._kill_at, self._group_awaited = inf, False
            self.child.signal(signal.SIGKILL)
