"""How a command can fail."""

import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress


class ProcessFailed(subprocess.CalledProcessError):
    """A command failed: `returncode` as in `subprocess`, `cmd`, and the last lines of its `stderr`."""

    error_type: str | None = None
    """The type of the error, as the operation shows it."""

    def __init__(self, returncode: int, command: Sequence[str], last: Iterable[str] = ()) -> None:
        lines = tuple(last)
        super().__init__(returncode, list(command), stderr="\n".join(lines))
        self.args = (returncode, self.cmd, lines)  # pickling recreates the exception from these

    def __str__(self) -> str:
        said = f":\n{self.stderr}" if self.stderr else ""
        return f"{self.cmd[0]} {self._end()}{said}"

    def _end(self) -> str:
        if self.returncode >= 0:
            return f"ended with exit code {self.returncode}"
        name = f"signal {-self.returncode}"
        with suppress(ValueError):  # real-time signals have no name
            name = signal.Signals(-self.returncode).name
        return f"was killed by {name}"


class ExitCode(ProcessFailed):
    """A command ended with an exit code other than 0."""

    error_type = "exit-code"


class KilledBySignal(ProcessFailed):
    """A signal ended a command; `returncode` is the negative number of the signal."""

    error_type = "signal"


class ProcessTimedOut(subprocess.TimeoutExpired):
    """A command was ended because it ran longer than its timeout; `stderr` has its last lines."""

    error_type = "timeout"

    def __init__(self, command: Sequence[str], timeout: float, last: Iterable[str] = ()) -> None:
        lines = tuple(last)
        self._last = "\n".join(lines)
        super().__init__(list(command), timeout, stderr=self._last)
        self.args = (self.cmd, timeout, lines)  # pickling recreates the exception from these

    def __str__(self) -> str:
        said = f":\n{self._last}" if self._last else ""
        return f"{self.cmd[0]} was ended because it ran longer than {self.timeout:g} s{said}"


def failure(returncode: int, command: Sequence[str], last: Iterable[str] = ()) -> ProcessFailed:
    """Return the exception for a command that failed."""
    return (KilledBySignal if returncode < 0 else ExitCode)(returncode, command, last)
