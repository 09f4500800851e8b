"""Real servers for tests: started on free ports or sockets, stopped by the id of the process that was started."""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from progress_cli.__main__ import run
from tests.forked import Forked

DEADLINE_S = 60.0
"""What anything may take on a busy machine; what takes longer hangs."""
START_S = 180.0
"""What a server may take to start: it is much to load, and many may start at once."""

_ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_ANY_CERTIFICATE.check_hostname, _ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE


def need(binary: str, package: str) -> str:
    """Return the path of a program; a test that needs a real one fails where it is missing, and says so."""
    found = shutil.which(binary)
    if found is None:
        raise RuntimeError(f"{binary} is missing: `make setup` installs Debian's {package} as root")
    return found


def free_port() -> int:
    """Return a port that is the caller's: while this process runs, the kernel gives it to nobody who asks for any.

    So long a socket that does not listen holds it, beside which any server may, as all of them say SO_REUSEADDR.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port: int = holder.getsockname()[1]
        holder.detach()  # from what would close it
    return port


def pauses() -> Iterator[float]:
    """Yield how long to wait before looking again: longer and longer, as looking takes from what is waited for."""
    pause_s = 0.01
    while True:
        yield pause_s
        pause_s = min(pause_s * 1.25, 0.1)


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    end, pausing = time.monotonic() + deadline_s, pauses()
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        time.sleep(next(pausing))


async def eventually(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    end, pausing = time.monotonic() + deadline_s, pauses()
    while True:
        met = condition()
        if isinstance(met, Awaitable):
            met = await met
        if met:
            return
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s} s")
        await asyncio.sleep(next(pausing))


class Process:
    """A process of ours, with its output in a file."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.command, self.log, self.env = command, log, env
        self.popen: subprocess.Popen[bytes] | Forked | None = None

    def start(self) -> Self:
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self.env
            )
        return self

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def send(self, number: int) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.popen is None:
            return 0
        self.send(number)
        try:
            return self.popen.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")


class CommandLine(Process):
    """The command line with some words, forked from a process that has loaded it; see `tests/forked.py`."""

    leading = False
    main: Callable[[], None] = staticmethod(run)

    def start(self) -> Self:
        self.popen = Forked(self.command, self.log, self.env, leading=self.leading, main=self.main)
        return self


class RealRedis(Process):
    """A redis-server on a unix socket, or on a port; with its append-only file when it is to survive a restart."""

    def __init__(
        self,
        folder: Path,
        *,
        keep: bool = False,
        port: int | None = None,
        options: tuple[str, ...] = (),
        binary: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = folder / "redis.sock"
        self.url = f"redis://127.0.0.1:{port}" if port else f"unix://{self.socket}"
        address = ["--port", str(port)] if port else ["--port", "0", "--unixsocket", str(self.socket)]
        keeping = ["--appendonly", "yes" if keep else "no", "--save", ""]
        binary = binary or need("redis-server", "redis-server")
        command = [binary, *address, *keeping, "--dir", str(folder), *options]
        super().__init__(command, folder / "redis.log")

    def start(self) -> Self:
        super().start()
        wait_until(self._answers, f"redis-server starts: {self.output()[-500:]}", START_S)
        return self

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, protocol=2) as client:  # it may know no HELLO
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


class Sentinel(Process):
    """A sentinel that watches a master."""

    def __init__(self, folder: Path, master: RealRedis) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, conf = free_port(), folder / "sentinel.conf"
        host, _, watched = master.url.removeprefix("redis://").partition(":")
        conf.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor m {host} {watched} 1\n")
        self.url = f"redis://127.0.0.1:{port}"
        super().__init__([need("redis-server", "redis-server"), str(conf), "--sentinel"], folder / "sentinel.log")

    def start(self) -> Self:
        super().start()
        wait_until(lambda: "+monitor master" in self.output(), "the sentinel starts", START_S)
        return self


class ApiReplica(CommandLine):
    """An API server as users run it, but for its imports, which all of them share."""

    def __init__(self, redis_url: str, log: Path, port: int | None = None, **settings: object) -> None:
        self.port = port or free_port()
        self.url = f"{'https' if 'tls_cert' in settings else 'http'}://127.0.0.1:{self.port}"
        env = os.environ | {f"PROGRESS_{name.upper()}": str(value) for name, value in settings.items()}
        env |= {"PROGRESS_REDIS_URL": redis_url, "PROGRESS_PORT": str(self.port)}
        super().__init__(["serve"], log, env)

    def await_ready(self) -> Self:
        wait_until(self._ready, f"the API starts: {self.output()[-2000:]}", START_S)
        return self

    def _ready(self) -> bool:
        import urllib.error
        import urllib.request

        if self.popen is not None and self.popen.poll() is not None:
            raise AssertionError(f"the API ended with {self.popen.returncode}: {self.output()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=2, context=_ANY_CERTIFICATE) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self) -> Self:
        return self.start().await_ready()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(signal.SIGKILL)
