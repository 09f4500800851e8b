"""A command as a child process, whose outputs are ours to read."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple

from progress_broker.errors import Invalid


class Place(NamedTuple):
    """Where and with what a command runs, as `subprocess.Popen` takes it."""

    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    stdin: int | IO[Any] | None = subprocess.DEVNULL
    with_terminal: bool = False
    """Whether it belongs to our terminal, if we have one, from which it then may read when it is let."""
    in_one: bool = False
    """Whether stderr goes where stdout does, so that what is written to them keeps its order."""
    prepare: Callable[[], None] | None = None
    """Called in the child before its program begins."""


class Child:
    """A child in a process group of its own, which a signal reaches with all it started.

    A thread waits for it, and calls `changed` when it stopped or ended.
    """

    def __init__(self, command: Sequence[str], place: Place, changed: Callable[[], None]) -> None:
        if isinstance(command, str | bytes) or not command:
            raise Invalid("a command is a list of words: it is run as it is, without a shell", field="command")
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
        """The signal that has stopped it, as Ctrl-Z does, until somebody takes care of it."""
        self._changed = changed
        self._waiting = Thread(target=self._wait, name="progress-child", daemon=True)
        try:
            self._waiting.start()
        except BaseException:  # no thread is to be had: then nobody would look after it
            with self._popen:
                self._popen.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process, and the group that it leads."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """What it ended with, as `subprocess` has it, or None while it lives."""
        return self._popen.returncode

    @property
    def outputs(self) -> list[IO[bytes]]:
        """The reading ends of its stdout and stderr, or of the one pipe that is both."""
        return [pipe for pipe in (self._popen.stdout, self._popen.stderr) if pipe is not None]

    def signal(self, number: int) -> None:
        """Send a signal to it and all in its group; nobody there is no error."""
        with suppress(ProcessLookupError, PermissionError):  # macOS says the latter of a group of the dead
            os.killpg(self.pid, number)

    def ask_to_end(self) -> None:
        """Have it end: one that is stopped, too."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)

    def group_lives(self) -> bool:
        """Return whether any in its group is alive, once it has ended itself."""
        with suppress(ChildProcessError):
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass  # orphans are handed to process 1, and in a container that may be us
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return not _all_dead(self.pid)

    def close(self) -> None:
        """Wait until it has ended, and let go of what it cost."""
        self._waiting.join()
        for output in self.outputs:
            output.close()

    def _wait(self) -> None:
        while self.returncode is None:
            try:
                _, status = os.waitpid(self.pid, os.WUNTRACED)
            except ChildProcessError:
                status = 0  # this process ignores SIGCHLD, so nobody can know; subprocess says the same
            if os.WIFSTOPPED(status):
                self.stopped_by = os.WSTOPSIG(status)
            else:
                self._popen.returncode = os.waitstatus_to_exitcode(status)
            self._changed()


def _all_dead(group: int) -> bool:
    """Return whether a group is known to be of zombies only, which an idle process 1 may leave there for ever."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):  # empty on other systems than Linux
        with suppress(OSError):
            state, _, theirs = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
            if int(theirs) == group:
                states.append(state)
    return bool(states) and set(states) <= {"Z", "X"}
