"""`serve --processes`: several processes on one address, when one of them dies and when all are stopped."""

import asyncio
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import redis as library

from progress_broker.errors import SetupError
from progress_broker.settings import load_settings
from progress_cli.server.child import BEAT_S, Replica
from progress_server.server.sockets import listen_for_each
from tests import servers
from tests.cli.conftest import Shell, children, ready, runs
from tests.conftest import make_settings
from tests.servers import START_S, CommandLine, Process, RealRedis, eventually
from tests.sse import Message, published

wait_until = partial(servers.wait_until, deadline_s=START_S)  # these tests start many processes


class Stream:
    """A client's stream, read by a thread; it knows its server process."""

    def __init__(self, url: str, position: str = "", operation: str = "a") -> None:
        host, port = urlsplit(url).hostname, urlsplit(url).port
        self._connection = http.client.HTTPConnection(host or "", port, timeout=60)
        self._path, self._position = f"/v1/operations/{operation}/stream", position
        self._got = bytearray()
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        headers = {"Last-Event-ID": self._position} if self._position else {}
        self._connection.request("GET", f"{self._path}{'' if headers else '?from=start'}", headers=headers)
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200
        self.port: int = self._socket.getsockname()[1]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._answer.close()
        self._connection.close()

    def _read(self) -> None:
        with suppress(OSError, http.client.HTTPException):
            while some := self._answer.read1():
                self._got += some
        self.ended.set()

    def messages(self) -> list[Message]:
        return published(bytes(self._got))

    def numbers(self) -> list[int]:
        return [message.json["n"] for message in self.messages() if message.id]

    def owner(self, pids: list[int]) -> int:
        """The process that holds the other end."""
        peer = f":{self.port:04X}"
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, _, remote, state, *rest = line.split()
            if remote.endswith(peer) and state == "01":
                return next((pid for pid in pids if f"socket:[{rest[5]}]" in files(pid)), 0)
        return 0


def files(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(entry))
    return found


def replicas(server: Process) -> list[int]:
    return children(server.pid, "progress_cli.server.child_main")


def post(url: str, path: str, body: dict[str, Any]) -> None:
    with urllib.request.urlopen(f"{url}{path}", json.dumps(body).encode(), timeout=60) as answer:
        assert answer.status in (200, 201)


def publish(url: str, operation: str = "a") -> None:
    post(url, f"/v1/operations/{operation}/events", {"type": "log", "data": {"message": "x"}})


def on_each(
    streams: ExitStack, url: str, pids: list[int], position: str = "", operation: str = "a"
) -> dict[int, Stream]:
    """Open streams until each process serves one; return one of each."""
    found: dict[int, Stream] = {}

    def one_more() -> bool:
        stream = streams.enter_context(Stream(url, position, operation))
        found[stream.owner(pids)] = stream
        return all(pid in found for pid in pids)

    wait_until(one_more, "each process serves a stream")
    return {pid: found[pid] for pid in pids}


SERVE = ("serve", "--port", "0", "--processes", "2", "--drain-s", "1")


def serving(shell: Shell, *words: str, leading: bool = False) -> CommandLine:
    """Two processes; with `leading` in their own process group, as a shell does it."""
    process = shell.process(*SERVE, *words)
    process.leading = leading
    return process


@pytest.fixture
def streams() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server for tests that leave it with two processes; each has an operation of its own."""
    folder = tmp_path_factory.mktemp("pair")
    with RealRedis(folder / "redis") as redis, serving(Shell(folder, redis_url=redis.url)) as server:
        ready(server)
        yield server
        assert "Traceback" not in server.output()


def told_to_leave(stream: Stream) -> bool:
    stream.ended.wait(120)
    (*_, last) = stream.messages()
    return (last.type, last.json) == ("reconnect", {"reason": "draining"})


def test_each_serves_what_is_published_through_any(pair: Process, streams: ExitStack) -> None:
    url, pids = ready(pair), replicas(pair)
    assert f"serving on {url} - 2 processes - Ctrl-C stops it\n" in pair.output()
    assert len(pids) == 2
    post(url, "/v1/operations", {"id": "a"})
    watching = on_each(streams, url, pids).values()
    for _ in range(4):
        publish(url)
    wait_until(lambda: all(stream.numbers() == [1, 2, 3, 4, 5] for stream in watching), "all see all")


def test_a_stream_is_ended_at_whichever_process_it_is(pair: Process, streams: ExitStack, tmp_path: Path) -> None:
    url, pids = ready(pair), replicas(pair)
    post(url, "/v1/operations", {"id": "k"})
    watching = on_each(streams, url, pids, operation="k").values()
    shell = Shell(tmp_path, url=url)

    names: list[str] = []

    def are_listed() -> bool:  # a process that was started just now is present a moment later
        names[:] = shell.run("streams", "--operation", "k", "-o", "name").stdout.split()
        return len({name.partition("-")[0] for name in names}) == 2

    wait_until(are_listed, "both processes tell their streams")
    assert shell.says("kick", *names).count("is ended") == len(names)
    for stream in watching:
        wait_until(stream.ended.is_set, "its client hears of it")
        assert stream.messages()[-1].json == {"reason": "kicked"}


def test_a_killed_one_is_replaced_and_its_clients_resume(pair: Process, streams: ExitStack) -> None:
    url = ready(pair)
    post(url, "/v1/operations", {"id": "b"})
    dead, alive = pids = replicas(pair)
    watching = on_each(streams, url, pids, operation="b")
    publish(url, "b")
    wait_until(lambda: watching[dead].numbers() == [1, 2], "its client saw the first")
    os.kill(dead, signal.SIGKILL)
    publish(url, "b")
    wait_until(watching[dead].ended.is_set, "its streams end")
    wait_until(lambda: f"process {dead} was killed by SIGKILL; a replacement starts in 0.1 s" in pair.output(), "told")
    wait_until(lambda: len(replicas(pair)) == 2, "another one starts")
    (fresh,) = set(replicas(pair)) - {alive}
    resumed = on_each(streams, url, [fresh, alive], watching[dead].messages()[-1].id, "b")
    publish(url, "b")
    wait_until(lambda: watching[alive].numbers() == [1, 2, 3, 4], "the other's streams went on")
    wait_until(lambda: all(each.numbers() == [3, 4] for each in resumed.values()), "clients resume, anywhere")
    assert not Path(f"/proc/{dead}").exists()  # not even as a zombie


def test_one_told_to_stop_drains_and_is_replaced(pair: Process, streams: ExitStack) -> None:
    url, pids = ready(pair), replicas(pair)
    post(url, "/v1/operations", {"id": "c"})
    watching = on_each(streams, url, pids, operation="c")
    os.kill(pids[0], signal.SIGTERM)
    assert told_to_leave(watching[pids[0]])
    wait_until(lambda: f"process {pids[0]} ended with exit code 0; a replacement" in pair.output(), "its end is told")
    wait_until(lambda: len(replicas(pair)) == 2, "another one starts")
    on_each(streams, url, replicas(pair), operation="c")
    assert not watching[pids[1]].ended.is_set()


def test_while_one_keeps_dying_the_others_take_its_connections(pair: Process, streams: ExitStack) -> None:
    url = ready(pair)
    post(url, "/v1/operations", {"id": "d"})
    steady = replicas(pair)[0]
    before = pair.output().count("a replacement starts")
    for deaths in range(1, 4):
        wait_until(lambda: len(replicas(pair)) == 2, "it is there again")
        (pid,) = set(replicas(pair)) - {steady}
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda many=before + deaths: pair.output().count("a replacement starts") == many, "it is noticed")
    for _ in range(8):  # until the next one listens; those of before are not left waiting either
        streams.enter_context(Stream(url, operation="d"))
    wait_until(lambda: len(replicas(pair)) == 2, "it is there again")
    on_each(streams, url, replicas(pair), operation="d")


def test_a_replacement_that_cannot_start_is_tried_again(shell: Shell, tmp_path: Path) -> None:
    with RealRedis(tmp_path / "r", keep=True) as redis, serving(shell, "--redis-url", redis.url) as server:
        ready(server)
        with library.Redis.from_url(redis.url) as client:
            client.config_set("requirepass", "another")  # applies to new connections only
            os.kill(replicas(server)[0], signal.SIGKILL)
            wait_until(lambda: server.output().count("could not start (Redis rejected the") >= 2, "it is tried again")
            assert server.popen is not None
            assert server.popen.poll() is None
            client.config_set("requirepass", "")
        wait_until(lambda: server.output().count("Application startup complete") == 3, "it starts in the end")


def a_signal(server: Process) -> None:
    server.send(signal.SIGTERM)


def the_terminal(server: Process) -> None:
    """Do what Ctrl-C does: signal the foreground process group."""
    os.killpg(server.pid, signal.SIGINT)


def everyone(server: Process) -> None:
    """Do what systemd does: signal each process, so that supervised processes get the signal twice."""
    for pid in [*replicas(server), server.pid]:
        os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize(("tell", "drain_s"), [(a_signal, 1), (the_terminal, 600), (everyone, 1)])
def test_told_to_stop_all_drain_and_nothing_is_left(
    lonely: Shell, streams: ExitStack, tell: Callable[[Process], None], drain_s: int
) -> None:
    """A Ctrl-C sends all away at once, however long a drain is to take."""
    with serving(lonely, "--drain-s", str(drain_s), leading=True) as server:
        url = ready(server)
        post(url, "/v1/operations", {"id": "a"})
        started = children(server.pid)
        assert len(started) == 3  # including its Redis
        watching = on_each(streams, url, replicas(server))
        tell(server)
        assert server.popen is not None
        assert server.popen.wait(120) == 0
        assert all(told_to_leave(stream) for stream in watching.values())
        assert not any(Path(f"/proc/{pid}").exists() for pid in started)
        assert "Traceback" not in server.output()
        assert "a replacement" not in server.output()
    assert not (lonely.folder / "data" / "address").exists()


def readiness(url: str) -> int:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as rejected:
        with rejected:
            return rejected.code if json.load(rejected)["reason"] == "draining" else 0


def test_while_all_drain_they_say_so_and_a_second_signal_ends_them_now(shell: Shell, streams: ExitStack) -> None:
    """Also one that hears no signal."""
    with serving(shell, "--drain-s", "600") as server:
        url = ready(server)
        post(url, "/v1/operations", {"id": "a"})
        stuck, _ = pids = replicas(server)
        watching = on_each(streams, url, pids)
        server.send(signal.SIGTERM)
        wait_until(lambda: [readiness(url) for _ in range(8)] == [503] * 8, "none is ready")
        publish(url)
        wait_until(lambda: all(stream.numbers() == [1, 2] for stream in watching.values()), "streams go on")
        os.kill(stuck, signal.SIGSTOP)
        assert server.stop(signal.SIGTERM) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_one_that_does_not_stop_is_killed(shell: Shell) -> None:
    with serving(shell, "--drain-s", "0.1") as server:
        ready(server)
        stuck = replicas(server)[0]
        os.kill(stuck, signal.SIGSTOP)
        assert server.stop(signal.SIGTERM) == 0
        assert not Path(f"/proc/{stuck}").exists()


async def test_one_that_hangs_is_noticed_and_killed(redis_url: str, streams: ExitStack) -> None:
    settings = make_settings(redis_url=redis_url, port=0)
    (listener,) = [streams.enter_context(one) for one in listen_for_each(settings, 1)]
    with closing(await Replica.start(settings, {}, listener, lambda: None)) as process:
        assert await process.serves()
        ending = asyncio.create_task(process.ended(silent_s=2.5 * BEAT_S))
        await eventually(lambda: process.beats >= 2, "it lives", START_S)
        assert not ending.done()
        process.send(signal.SIGSTOP)
        assert "was silent for 5 s, so it was killed" in (await ending).said


def test_a_signal_before_they_serve_stops_it_too(shell: Shell) -> None:
    with serving(shell) as server:
        wait_until(lambda: len(replicas(server)) == 2, "they start")
        started = replicas(server)
        assert server.stop(signal.SIGTERM) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in started)
        assert "Traceback" not in server.output()


def test_killed_it_takes_them_along_and_no_secret_was_in_a_command_line_or_an_environment(
    lonely: Shell, streams: ExitStack
) -> None:
    with lonely.interpreter(*SERVE) as server:
        url = ready(server)
        post(url, "/v1/operations", {"id": "a"})
        started = children(server.pid)
        secret = (lonely.folder / "data" / "password").read_bytes().strip()
        for pid in [server.pid, *started]:
            for where in ("cmdline", "environ"):
                assert secret not in Path(f"/proc/{pid}/{where}").read_bytes()
        watching = on_each(streams, url, replicas(server))
        server.stop(signal.SIGKILL)
        assert all(told_to_leave(stream) for stream in watching.values())
        wait_until(lambda: not any(runs(pid) for pid in started), "they end")


def test_without_a_word_from_the_kernel_too_one_ends_with_its_supervisor(shell: Shell, streams: ExitStack) -> None:
    (listener,) = [streams.enter_context(one) for one in listen_for_each(make_settings(port=0), 1)]
    ours, theirs = (streams.enter_context(end) for end in socket.socketpair())
    orders = {"settings": {"redis_url": shell.env["PROGRESS_REDIS_URL"]}, "given": {}, "listener": listener.fileno()}
    with theirs:
        command = [sys.executable, "-P", "-m", "progress_cli.server.child_main"]
        child = subprocess.Popen(command, stdin=theirs, stderr=subprocess.DEVNULL, pass_fds=[listener.fileno()])
    with child:
        ours.sendall(json.dumps(orders).encode() + b"\n")
        with ours.makefile("rb") as said:
            assert next(word for line in said if "error" in (word := json.loads(line))) == {"error": None}
        ours.close()
        assert child.wait(120) == 0


def test_a_port_of_many_processes_is_taken_for_others(shell: Shell, pair: Process) -> None:
    port = str(urlsplit(ready(pair)).port)
    for processes in ("1", "2"):
        line = shell.fails(5, "serve", "--port", port, "--processes", processes)
        assert line.startswith(f"can't listen on 127.0.0.1:{port} (")


@pytest.mark.parametrize("reuse_port", [False, True])
def test_a_port_of_others_is_taken(reuse_port: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port) as taken:
        port: int = taken.getsockname()[1]
        with pytest.raises(SetupError, match=f"can't listen on 127.0.0.1:{port} "):
            listen_for_each(make_settings(port=port), 2)


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_free_port_is_one_for_all(host: str, family: socket.AddressFamily, streams: ExitStack) -> None:
    listeners = [streams.enter_context(one) for one in listen_for_each(make_settings(host=host, port=0), 4)]
    (address,) = {one.getsockname()[:2] for one in listeners}
    assert {one.family for one in listeners} == {family}
    accepted: set[int] = set()

    def one_more() -> bool:
        streams.enter_context(socket.create_connection(address))
        (ready, *_), _, _ = select.select(listeners, [], [], 30)
        streams.enter_context(ready.accept()[0])
        accepted.add(ready.fileno())
        return len(accepted) == len(listeners)

    wait_until(one_more, "each listener gets connections")


def test_a_setup_error_is_told_once(shell: Shell, redis_url: str) -> None:
    url = redis_url.replace("unix://", "unix://:s3cret@")
    line = shell.fails(5, "serve", "--port", "0", "--processes", "2", "--redis-url", url)
    assert line.startswith("Redis rejected the user or password")
    assert "s3cret" not in line


def test_none_that_stays_up_is_told_too(shell: Shell) -> None:
    with serving(shell) as server:
        wait_until(lambda: len(replicas(server)) == 2, "they start")
        for pid in replicas(server):
            os.kill(pid, signal.SIGKILL)
        assert server.popen is not None
        assert server.popen.wait(120) == 5
        assert re.fullmatch(
            r"progress-broker: no server process keeps running: process \d+ was killed by SIGKILL\n", server.output()
        )


def test_a_number_of_processes_that_is_none(shell: Shell) -> None:
    line = shell.fails(5, "serve", "--processes", "0")
    assert line.startswith("invalid settings: PROGRESS_PROCESSES: Input should be greater than or equal to 1")
    for processes in (-1, 1000):
        with pytest.raises(SetupError, match="PROGRESS_PROCESSES: Input should be "):
            load_settings(processes=processes)


def test_one_process_is_no_other_than_itself(shell: Shell) -> None:
    with shell.process("serve", "--port", "0", "--processes", "1") as server:
        assert f"serving on {ready(server)} - Ctrl-C stops it" in server.output()
        assert children(server.pid) == []
