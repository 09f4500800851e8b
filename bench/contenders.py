"""The servers that are compared. Each runs alone on the measured core; its CPU and memory are read from the kernel."""

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import NamedTuple

import httpx
import jwt

from bench import senders
from bench.clients import Plan
from bench.processes import START_S, STOP_S, PrivateRedis, free_port, pin
from progress_broker.embedded.server_process import ending_with_us

ROOT = Path(__file__).resolve().parents[1]
NCHAN_MODULES = ("/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/share/nginx/modules/ngx_nchan_module.so")
_SERVING = re.compile(rb"serving on https?://127\.0\.0\.1:(\d+)")


class Kind(NamedTuple):
    """Properties of a contender that are known before it runs."""

    overhead_bytes: int
    """Bytes on the wire around the payload of an event."""
    deliveries_a_second: float
    """A rate that keeps it busy without saturating it."""
    greets: bool = False
    """Whether a stream begins with an extra event, a snapshot."""
    key: str = '"seq":'


KINDS = {
    "broker": Kind(128, 60_000, greets=True, key='"n":'),
    "broker-asgi": Kind(128, 15_000, greets=True, key='"n":'),
    "sse-starlette": Kind(39, 15_000),
    "nchan": Kind(42, 60_000),
}


GUARDED = "broker-guarded"
"""The broker with authentication; its clients use a ticket."""


class Server(NamedTuple):
    """A running contender: a process and its children."""

    kind: Kind
    pid: int
    port: int
    path: str
    target: senders.Target

    def plan(self, *, arrival: bool = False, segment_bytes: int = 0, receive_bytes: int = 0) -> Plan:
        return Plan(
            self.port,
            self.path,
            key=self.kind.key,
            arrival=arrival,
            segment_bytes=segment_bytes,
            receive_bytes=receive_bytes,
        )

    def cpu_s(self) -> float:
        """CPU time so far, in seconds."""
        return sum(_cpu_s(pid) for pid in self._pids())

    def rss_bytes(self) -> int:
        return sum(_memory_bytes(pid, "VmRSS") for pid in self._pids())

    def peak_bytes(self) -> int:
        """The peak of its memory since `forget_peak`."""
        return sum(_memory_bytes(pid, "VmHWM") for pid in self._pids())

    def forget_peak(self) -> None:
        for pid in self._pids():
            Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")

    def _pids(self) -> list[int]:
        return [self.pid, *_children(self.pid)]


def present() -> list[str]:
    """Return the contenders that can be run here."""
    return [name for name in KINDS if name != "nchan" or (nchan_module() and shutil.which("nginx"))]


def nchan_module() -> str | None:
    return next((path for path in NCHAN_MODULES if Path(path).exists()), None)


def nginx_version() -> str | None:
    if not (nginx := shutil.which("nginx")):
        return None
    told = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False)
    return told.stderr.strip().rpartition("/")[2] or None


@contextmanager
def start(
    name: str, redis: PrivateRedis, cores: frozenset[int], settings: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Server]:
    """Run a contender, and stop it at the end. The settings are variables of the broker's."""
    kind = KINDS["broker" if name == GUARDED else name]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if name == "nchan":
            with _nginx(Path(folder), cores) as (pid, port):
                yield Server(kind, pid, port, "/stream", senders.Target(port=port))
            return
        if name == "sse-starlette":
            command = ["bench.asgi_server", "sse-starlette"]
        else:
            redis.client.flushall()
            served = ["progress_cli", "serve", "--port", "0", "--redis-url"]
            command = [*(["bench.asgi_server", "broker"] if name == "broker-asgi" else served), redis.url]
        secret = token_hex(32)
        guard = {"PROGRESS_AUTH": "jwt", "PROGRESS_JWT_KEY": secret} if name == GUARDED else {}
        with _python(command, Path(folder), cores, {**guard, **settings}) as (pid, port):
            if name == "sse-starlette":
                yield Server(kind, pid, port, "/stream", senders.Target(port=port, as_list=True))
            else:
                path = f"/v1/operations/{senders.OPERATION}/stream"
                if name == GUARDED:
                    path += f"?ticket={_ticket(port, secret)}"
                yield Server(kind, pid, port, path, senders.Target(redis.url))


@contextmanager
def _python(
    arguments: list[str], folder: Path, cores: frozenset[int], more: Mapping[str, str]
) -> Iterator[tuple[int, int]]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    with _process([sys.executable, "-m", *arguments], folder, cores, env) as (process, output):
        end = time.monotonic() + START_S
        while (serving := _SERVING.search(said := output.read_bytes())) is None:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{' '.join(arguments)} did not start: {said.decode(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield process.pid, int(serving[1])


def _ticket(port: int, secret: str) -> str:
    grants = [{"actions": ["read"]}]
    token = jwt.encode({"sub": "bench", "grants": grants, "exp": time.time() + 3_600}, secret, "HS256")
    url = f"http://127.0.0.1:{port}/v1/operations/{senders.OPERATION}/tickets"
    answer = httpx.post(url, headers={"Authorization": f"Bearer {token}"})
    return str(answer.raise_for_status().json()["ticket"])


@contextmanager
def _nginx(folder: Path, cores: frozenset[int]) -> Iterator[tuple[int, int]]:
    port = free_port()
    filled = {"MODULE": nchan_module(), "FILES": _file_limit(), "PORT": port}
    text = Path(__file__).with_name("nchan.conf").read_text("utf-8")
    for name, value in filled.items():
        text = text.replace(f"@{name}@", str(value))
    (folder / "nginx.conf").write_text(text, "utf-8")
    command = ["nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    with _process(command, folder, cores, dict(os.environ)) as (process, output):
        end = time.monotonic() + START_S
        while not (_listens(port) and _children(process.pid)):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"nginx did not start: {output.read_text('utf-8', 'replace')[-2000:]}")
            time.sleep(0.02)
        yield process.pid, port


@contextmanager
def _process(
    command: list[str], folder: Path, cores: frozenset[int], env: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    ending = ending_with_us()

    def prepare() -> None:
        ending()
        pin(cores)

    output = folder / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=prepare
        )
    try:
        yield process, output
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _cpu_s(pid: int) -> float:
    with suppress(OSError):  # in nanoseconds, if the kernel provides it
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text("ascii").split()[0]) for task in tasks) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_bytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _file_limit() -> int:
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)
