"""A command as a child process, whose output this process reads."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple

from progress_broker.errors import InvalidInput


def check_command(command: object) -> None:
    """Raise `InvalidInput` if a command is not a list of words."""
    wrong = not command or isinstance(command, str | bytes) or not isinstance(command, Sequence)
    if wrong or not all(isinstance(word, str | bytes | os.PathLike) for word in command):  # type: ignore[attr-defined]
        raise InvalidInput("a command must be a list of words: it runs without a shell", field="command")


class SpawnOptions(NamedTuple):
    """Where and how a command runs, as arguments of `subprocess.Popen`."""

    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    stdin: int | IO[Any] | None = subprocess.DEVNULL
    with_terminal: bool = False
    """Whether it stays in our terminal, if there is one. It can then read from it while it is in the foreground."""
    in_one: bool = False
    """Whether stderr goes to the same pipe as stdout, so that the order of the output is kept."""
    prepare: Callable[[], None] | None = None
    """Called in the child process before its program starts."""


class Child:
    """A child process in its own process group. A signal reaches it and everything that it started.

    A thread waits for it, and calls `changed` when it stopped or ended.
    """

    def __init__(self, command: Sequence[str], place: SpawnOptions, changed: Callable[[], None]) -> None:
        check_command(command)
        apart: dict[str, Any] = {"process_group": 0} if place.with_terminal else {"start_new_session": True}
        self._popen = subprocess.Popen(
            command,
            cwd=place.cwd,
            env=place.env,
            stdin=place.stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if place.in_one else subprocess.PIPE,
            bufsize=0,
            preexec_fn=place.prepare,
            **apart,
        )
        self.stopped_by: int | None = None
        """The signal that stopped it, for example by Ctrl-Z, until the stop is handled."""
        self._changed = changed
        self._waiting = Thread(target=self._wait, name="progress-child", daemon=True)
        try:
            self._waiting.start()
        except BaseException:  # without the thread, nothing would wait for the child
            with self._popen:
                self._popen.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its process group."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code as in `subprocess`, or None while it runs."""
        return self._popen.returncode

    @property
    def outputs(self) -> list[IO[bytes]]:
        """The read ends of its stdout and stderr pipes, or of the single pipe for both."""
        return [pipe for pipe in (self._popen.stdout, self._popen.stderr) if pipe is not None]

    def signal(self, number: int) -> None:
        """Send a signal to its process group. An empty group is not an error."""
        with suppress(ProcessLookupError, PermissionError):  # macOS raises the latter for a group of dead processes
            os.killpg(self.pid, number)

    def ask_to_end(self) -> None:
        """Ask it to end, also if it is stopped."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def group_lives(self) -> bool:
        """Return whether any process of its group is still alive, after it has ended itself."""
        with suppress(ChildProcessError):
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass  # process 1 inherits orphans, and in a container that may be this process
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return not _all_dead(self.pid)

    def close(self) -> None:
        """Wait until it has ended, and release its resources."""
        self._waiting.join()
        for output in self.outputs:
            output.close()

    def _wait(self) -> None:
        while self.returncode is None:
            try:
                _, status = os.waitpid(self.pid, os.WUNTRACED)
            except ChildProcessError:
                status = 0  # this process ignores SIGCHLD, so the status is unknown; subprocess uses 0 too
            if os.WIFSTOPPED(status):
                self.stopped_by = os.WSTOPSIG(status)
            else:
                self._popen.returncode = os.waitstatus_to_exitcode(status)
            self._changed()


def _all_dead(group: int) -> bool:
    """Return whether a group certainly has only zombies, which an idle process 1 may never collect."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):  # empty on systems other than Linux
        with suppress(OSError):
            state, _, theirs = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            if int(theirs) == group:
                states.append(state)
    return bool(states) and set(states) <= {"Z", "X"}
