"""Processes that run the command line as `python -m progress_cli` does, forked from one that has loaded it.

Each is a process of its own, with its own environment, output and signals. They share the imports alone, which take
longer than all else that a server does in most tests. Tests of the command line itself, of what is in its environment
and of the image start an interpreter.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from progress_cli.__main__ import run

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.warm", "tests.forked"])


class Forked:
    """A process, with the part of `subprocess.Popen` that tests use.

    `leading` gives it a process group of its own, as a shell gives its commands.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: Path,
        env: dict[str, str] | None,
        *,
        errors: Path | None = None,
        cwd: Path | None = None,
        leading: bool = False,
        main: Callable[[], None] = run,
    ) -> None:
        files = [str(file) for file in (output, errors or output)]
        for file in files:
            Path(file).touch()  # a file that is written to is there from the start
        given = (list(arguments), files, dict(os.environ if env is None else env), str(cwd or os.getcwd()), leading)
        self._process = _FORKING.Process(target=_run, args=(main, *given), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("progress-broker", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    main: Callable[[], None], arguments: list[str], files: list[str], env: dict[str, str], cwd: str, leading: bool
) -> None:
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    if leading:
        os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["progress-broker", *arguments]
    main()


def _end_with_the_tests() -> None:
    """End when the process of the tests does, also if it is killed."""
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)
