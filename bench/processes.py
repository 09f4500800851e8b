"""The processes of a benchmark: a private Redis, and Python processes on separate cores.

All stop with the benchmark.
"""

import multiprocessing as mp
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

import redis

from progress_broker.embedded.server_process import ending_with_us

START_S = 180.0  # many may start at once, on one core
STOP_S = 5.0
SERVERS = ("redis-server", "valkey-server")

ALLOWED = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""The cores that this process may use, before anything is pinned."""


class Cores(NamedTuple):
    """The cores of the measured process, and those of all other processes; empty if pinning is not possible."""

    measured: frozenset[int]
    others: frozenset[int]

    @classmethod
    def split(cls) -> "Cores":
        if len(ALLOWED) < 2:
            return cls(frozenset(), frozenset())
        return cls(frozenset(ALLOWED[-1:]), frozenset(ALLOWED[:-1]))  # interrupts are usually handled by the first core


def pin(cores: frozenset[int], pid: int = 0) -> None:
    if cores:
        os.sched_setaffinity(pid, cores)


def busy_s() -> float:
    """Return the busy time of our cores so far, for any process, including time stolen by the host; 0 if unknown."""
    try:
        lines = Path("/proc/stat").read_text("ascii").splitlines()
    except OSError:
        return 0.0
    ours = {f"cpu{core}" for core in ALLOWED}
    total = 0
    for name, *ticks in (line.split() for line in lines if line.startswith("cpu")):
        if name in ours:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            total += user + nice + system + irq + softirq + steal
    return total / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class PrivateRedis:
    """A Redis server on a Unix socket, or on a port, in its own directory. It stores nothing on disk."""

    def __init__(self, cores: frozenset[int], port: int = 0, options: Mapping[str, str] | None = None) -> None:
        self._cores, self._options = cores, options or {}
        self._folder = Path(tempfile.mkdtemp(prefix="bench-"))
        self.port = port
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{self._folder}/redis.sock"
        self.client: Any = redis.Redis.from_url(self.url, protocol=2)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        binary = next((path for name in SERVERS if (path := shutil.which(name))), None)
        if binary is None:
            raise SystemExit("a benchmark needs redis-server or valkey-server on PATH")
        address = (
            {"port": str(self.port), "bind": "127.0.0.1"} if self.port else {"port": "0", "unixsocket": "redis.sock"}
        )
        options = {**address, "save": "", "appendonly": "no", "dir": str(self._folder), **self._options}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [binary, *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=ending_with_us(),
        )
        pin(self._cores, self._process.pid)
        try:
            self._await_answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def cpu_s(self) -> float:
        info = self.client.info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])

    def calls(self, command: str) -> int:
        return int(self.client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0))

    def _await_answer(self) -> None:
        end = time.monotonic() + START_S
        while True:
            try:
                self.client.ping()
            except redis.exceptions.RedisError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
            else:
                return


class Child:
    """A Python process that answers questions over a pipe. It runs `target(pipe, *args)`, and ends with the pipe.

    Its first message reports that it is ready. All are forked from one process, which has loaded the benchmark.
    """

    def __init__(self, target: Callable[..., None], *args: object, cores: frozenset[int], ready_s: float = 120) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([name for name in sys.modules if name.startswith("bench.")])
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(target, self._theirs, cores, args), daemon=True)
        self._ready_s = ready_s

    def __enter__(self) -> Self:
        self._process.start()
        self._theirs.close()  # so that our end is closed when the process ends
        try:
            self._answer(self._ready_s)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def ask(self, *question: object, within_s: float = 60) -> Any:
        self._pipe.send(question)
        return self._answer(within_s)

    def _answer(self, within_s: float) -> Any:
        if not self._pipe.poll(within_s):
            raise SystemExit(f"a process of the benchmark did not respond within {within_s:.0f} s")
        try:
            return self._pipe.recv()
        except EOFError:
            raise SystemExit("a process of the benchmark died; see its output above") from None


def serve(pipe: Connection, answer: Callable[..., object]) -> None:
    """Answer questions until the other end of the pipe is closed."""
    pipe.send("ready")
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(answer(*pipe.recv()))


def _run(target: Callable[..., None], pipe: Connection, cores: frozenset[int], args: tuple[object, ...]) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is for the parent; this process ends when the parent's end of the pipe is closed
    pin(cores)
    with suppress(KeyboardInterrupt):
        target(pipe, *args)
    sys.stdout.flush()
