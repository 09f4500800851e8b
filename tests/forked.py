"""Processes that run the command line as `python -m progress_cli` does, or some code, forked from one that loaded it.

Each is a process of its own, with its own environment, output and signals. They share the imports alone, which take
longer than all else that most of them do. Tests of how the command line is loaded and how an interpreter ends, of what
is in its environment and of the image start an interpreter.
"""

import atexit
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Self

from progress_cli.__main__ import run

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.warm", "tests.forked"])

To = Path | IO[Any] | int
"""Where an output goes: to the end of a file, into one that is open, or into `subprocess.PIPE`."""


class Forked:
    """A process, with the part of `subprocess.Popen` that tests use.

    `leading` gives it a process group of its own, as a shell gives its commands.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        output: To,
        env: dict[str, str] | None,
        *,
        errors: To | None = None,
        stdin: To = subprocess.DEVNULL,
        cwd: Path | None = None,
        leading: bool = False,
        main: Callable[[], None] = run,
        text: bool = False,
    ) -> None:
        self.args = list(arguments)
        streams = [_Stream(stdin, reads=True), _Stream(output)]
        streams.append(streams[1] if errors is None or errors == subprocess.STDOUT else _Stream(errors))
        self.stdin, self.stdout, self.stderr = (
            io.TextIOWrapper(stream.ours) if text and stream.ours else stream.ours for stream in streams
        )
        given = (self.args, streams, dict(os.environ if env is None else env), str(cwd or os.getcwd()), leading)
        self._process = _FORKING.Process(target=_run, args=(main, *given), daemon=True)
        self._process.start()
        for stream in streams:
            stream.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close its streams and wait for its end; kill it if the block failed, as it might never end by itself."""
        if error[0] is not None:
            self.kill()
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()
        self.wait()

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

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Write all of its input, and return all that it writes until it ends. Kill it at the timeout."""
        watch = threading.Timer(timeout, self.kill) if timeout else None
        if watch:
            watch.start()
        with ThreadPoolExecutor(2) as pool:
            outputs = [pool.submit(file.read) if file else None for file in (self.stdout, self.stderr)]
            if self.stdin:
                with suppress(BrokenPipeError):
                    if input:
                        self.stdin.write(input)
                    self.stdin.close()
        self.wait()
        if watch:
            watch.cancel()
        for file in filter(None, (self.stdout, self.stderr)):
            file.close()
        out, err = (output.result() if output else None for output in outputs)
        return out, err

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Stream:
    """A standard stream of a process: pickled, it is the process' own descriptor."""

    def __init__(self, to: To, *, reads: bool = False) -> None:
        self.ours: IO[bytes] | None = None
        self._opened = True
        if to == subprocess.PIPE:
            ends = os.pipe()
            self._theirs, ours = ends if reads else reversed(ends)
            self.ours = os.fdopen(ours, "wb" if reads else "rb")
        elif to == subprocess.DEVNULL or isinstance(to, Path):
            self._theirs = os.open(
                to if isinstance(to, Path) else os.devnull,
                os.O_RDONLY if reads else os.O_WRONLY | os.O_APPEND | os.O_CREAT,
            )
        else:
            self._theirs, self._opened = to if isinstance(to, int) else to.fileno(), False

    def close(self) -> None:
        """Close what the process has got, unless somebody else opened it."""
        if self._opened:
            os.close(self._theirs)
            self._opened = False

    def __reduce__(self) -> Any:
        return _detached, (DupFd(self._theirs),)


def _detached(passed: Any) -> int:
    return int(passed.detach())


def _run(
    main: Callable[[], None], arguments: list[str], streams: list[int], env: dict[str, str], cwd: str, leading: bool
) -> None:
    threading.Thread(target=_end_with_the_tests, daemon=True).start()
    if leading:
        os.setpgid(0, 0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    for stream in set(streams) - {0, 1, 2}:
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)  # of what kind they now are
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["progress-broker", *arguments]
    main()


def execute() -> None:
    """Run the code that is the only argument, as an interpreter does with `-c`, up to its end."""
    code = sys.argv.pop()
    sys.modules["__main__"] = module = ModuleType("__main__")
    try:
        exec(compile(code, "<string>", "exec"), vars(module))
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


def _end_with_the_tests() -> None:
    """End when the process of the tests does, also if it is killed."""
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os.kill(os.getpid(), signal.SIGKILL)
