"""The services of `compose.yaml` as processes of this machine: their own commands, with a container's addresses mapped.

Each replica of the API has a loopback address of its own, as each container has one, and all have the same port.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from tests.deploy import files
from tests.deploy.dns import NameServer
from tests.servers import DEADLINE_S, START_S, Process, free_port, need, wait_until

REPLICAS = ("127.0.0.2", "127.0.0.3")
DRAIN_S = "1.5"  # instead of what is written: tests have no time to lose
PACKAGES = {"redis-server": "redis-server", "redis-cli": "redis-tools", "nginx": "nginx", "wget": "wget"}


class Container(Process):
    """A service's process: it sees the environment its container would have, and nothing of ours."""

    def __init__(self, folder: Path, command: list[str], env: dict[str, str]) -> None:
        self.folder = folder
        folder.mkdir()
        super().__init__(command, folder.parent / f"{folder.name}.log", env)

    @property
    def url(self) -> str:
        """Its own address, where nginx reaches it."""
        assert self.env is not None
        return f"http://{self.env['PROGRESS_HOST']}:{self.env['PROGRESS_PORT']}"

    def start(self) -> Self:
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=self.env,
                cwd=self.folder,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        """End it with all it started, as an engine does with a container: nginx's workers outlive a killed master."""
        if self.popen is not None and self.popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.popen.wait()

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command beside it, as `docker exec` and health checks do."""
        return subprocess.run(
            command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )


class Stack:
    """Redis, the replicas, the worker and nginx, started in the order of their `depends_on`."""

    def __init__(self, folder: Path, site: Path) -> None:
        for program, package in PACKAGES.items():
            need(program, package)
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.services: dict[str, dict[str, Any]] = files.compose()["services"]
        self._site = site
        self._redis_port, self._api_port, self._nginx_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self._nginx_port}"
        self.names = NameServer("api", [])
        self.redis_url = f"redis://127.0.0.1:{self._redis_port}/0"
        self.redis = self._container("redis", self._redis_command(), {})
        self.replicas = [self._broker("api", host) for host in REPLICAS]
        self.worker = self._broker("worker", "127.0.0.1")
        self.nginx = self._container("nginx", self._nginx_command(), {})

    @contextmanager
    def running(self, *, known: tuple[str, ...] = REPLICAS, worker: bool = False) -> Iterator[Self]:
        """Run the services; the name `api` has the addresses in `known`. The worker compiles and packs files all the
        time, so it runs only for those who ask for it.
        """
        self.names.addresses = list(known)
        with ExitStack() as stack:
            stack.enter_context(self.names)
            stack.enter_context(self.redis)
            self.await_healthy("redis", self.redis, ("127.0.0.1", self._redis_port))
            for started in (*self.replicas, *([self.worker] if worker else [])):
                stack.enter_context(started)
            for host, replica in zip(REPLICAS, self.replicas, strict=True):
                self.await_healthy("api", replica, (host, self._api_port))
            stack.enter_context(self.nginx)
            self.await_healthy("nginx", self.nginx, ("127.0.0.1", self._nginx_port))
            yield self

    def health(self, name: str, container: Container) -> subprocess.CompletedProcess[str]:
        """Run a service's health check as written, with its addresses mapped."""
        command = files.health(self.services[name])
        assert command is not None
        if name == "redis":
            assert command[0] == "redis-cli"
            command = [command[0], "-p", str(self._redis_port), *command[1:]]
        elif name == "nginx":
            command = [part.replace("http://127.0.0.1:8080", self.url) for part in command]
        return container.run(command)

    def await_healthy(self, name: str, container: Container, address: tuple[str, int]) -> None:
        """Wait for its health check. A check is a program of its own, so none is started before the port is open."""

        def healthy() -> bool:
            assert container.popen is not None
            assert container.popen.poll() is None, f"{name} ended: {container.output()[-2000:]}"
            return listens(address) and self.health(name, container).returncode == 0

        wait_until(healthy, f"{name} is healthy", START_S)

    def _container(self, name: str, command: list[str], env: dict[str, str]) -> Container:
        shown = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return Container(self.folder / name, command, {"PATH": shown, "HOME": "/nonexistent"} | env)

    def _redis_command(self) -> list[str]:
        program, *options = files.command(self.services["redis"])
        return [program, *options, "--bind", "127.0.0.1", "--port", str(self._redis_port)]

    def _broker(self, service: str, host: str) -> Container:
        env = files.environment(self.services[service])
        del env["PATH"]
        env["PROGRESS_REDIS_URL"] = _replaced(
            env["PROGRESS_REDIS_URL"], "redis://redis:6379", f"redis://127.0.0.1:{self._redis_port}"
        )
        if service == "api":  # a container's 0.0.0.0 is its own address
            assert (env["PROGRESS_HOST"], env["PROGRESS_PORT"]) == ("0.0.0.0", "8000")
            assert env["PROGRESS_TRUSTED_PROXIES"] == files.nginx_address(self.services)
            env |= {"PROGRESS_TRUSTED_PROXIES": "127.0.0.1"}  # where nginx connects from here
            env |= {"PROGRESS_HOST": host, "PROGRESS_PORT": str(self._api_port), "PROGRESS_DRAIN_S": DRAIN_S}
        env["PYTHONPATH"] = str(self._site)
        name = f"{service}-{host}" if service == "api" else service
        return self._container(name, files.command(self.services[service]), env)

    def _nginx_command(self) -> list[str]:
        conf = self.folder / "nginx.conf"
        scratch = self.folder / "nginx-tmp"
        scratch.mkdir()
        text = files.NGINX.read_text()
        text = _replaced(text, "listen 8080;", f"listen 127.0.0.1:{self._nginx_port};")
        text = _replaced(text, "resolver 127.0.0.11 ", f"resolver {self.names.address} ")
        text = _replaced(text, "$replicas api:8000;", f"$replicas api:{self._api_port};")
        text = text.replace(" /tmp/", f" {scratch}/")
        if os.geteuid() == 0:  # else its workers become another user, as whom they can't reach our folder
            text = f"user root;\n{text}"
        conf.write_text(text)
        program, *options = files.command(self.services["nginx"])
        return [program, "-p", str(self.folder), "-c", str(conf), *options]


def listens(address: tuple[str, int]) -> bool:
    """Return whether somebody accepts connections there."""
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} is not what is written"
    return text.replace(old, new)


class Curl(Process):
    """curl without its own buffer, on a stream: what it has got so far is in a file."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        super().__init__([need("curl", "curl"), "-sSN", *options, url], folder / f"curl-{free_port()}.log")

    def await_text(self, text: str) -> str:
        wait_until(lambda: text in self.output(), f"{text!r} arrives: {self.output()[-2000:]}")
        return self.output()

    def await_end(self) -> str:
        assert self.popen is not None
        self.popen.wait(DEADLINE_S)
        return self.output()


STOP_SIGNALS = {"nginx": signal.SIGQUIT}  # nginx's image says so; engines send SIGTERM otherwise
