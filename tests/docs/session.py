"""What a reader of one page has: a shell, Python, a browser, a Redis and a server, on ports that nobody else has."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from playwright.sync_api import Browser

from tests.docs.blocks import ROOT
from tests.e2e.browser import START_MS, visited
from tests.servers import START_S, ApiReplica, Process, RealRedis, free_port, need, wait_until

TIMEOUT_S = 120  # a block may start several programs, on a machine that is busy with others
REDIS_PORT, SERVER_PORT = "6379", "8000"
_PORTS = re.compile(r"((?:127\.0\.0\.1|localhost):|--port |--serve |-p |http\.server )(\d{4,5})\b")
_SERVER = re.compile(rf"(127\.0\.0\.1|localhost):{SERVER_PORT}\b")
EVENT_SOURCE = "import { EventSource } from 'eventsource';\n"


class Session:
    """Runs the blocks of one page, in order and in one folder, as its reader would."""

    def __init__(self, folder: Path, browser: Callable[[], Browser], *, own_server: bool) -> None:
        self._folder, self._browser = folder, browser
        self._stack = ExitStack()
        self._ports: dict[str, str] = {}
        self._env: dict[str, str] = {}
        self._server_is_up = own_server
        self._python: subprocess.Popen[str] | None = None
        self._count = 0

    def __enter__(self) -> Self:
        port = free_port()
        redis = self._stack.enter_context(RealRedis(self._folder.parent / "redis", port=port))
        self._ports |= {REDIS_PORT: str(port), SERVER_PORT: str(free_port())}
        programs, variables = self._folder.parent / "bin", self._folder.parent / "variables"
        programs.mkdir()
        (programs / "redis-cli").write_text(f'#!/bin/sh\nexec {need("redis-cli", "redis-tools")} -p {port} "$@"\n')
        (programs / "redis-cli").chmod(0o755)
        variables.touch()
        self._folder.mkdir()
        (self._folder / "broker").symlink_to(ROOT / "broker")
        self._env = os.environ | {
            "XDG_CONFIG_HOME": str(self._folder.parent / "config"),
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "BASH_ENV": str(variables),
            "PROGRESS_REDIS_URL": redis.url,
            "PROGRESS_PORT": self._ports[SERVER_PORT],
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def save(self, name: str, text: str) -> None:
        (self._folder / name).write_text(self._here(text))

    def python(self, name: str, text: str) -> str:
        """Run a block in the namespace of the page's blocks; return what it prints."""
        if self._python is None:
            command = ["bash", "-c", f"exec {shlex.join([sys.executable, str(Path(__file__).with_name('driver.py'))])}"]
            python = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._env, cwd=self._folder
            )
            self._python = self._stack.enter_context(python)
            self._stack.callback(python.kill)
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps({"name": name, "text": self._here(text)}) + "\n")
        self._python.stdin.flush()
        answer = json.loads(self._python.stdout.readline())
        assert answer["failed"] is None, answer["failed"]
        return self._there(answer["printed"])

    def shell(self, text: str, code: int = 0) -> str:
        """Run a block; the variables that it exports are there for those after it."""
        keep = "trap 'export -p > \"$BASH_ENV\"' EXIT\n"
        return self._run(["bash", "-eu", "-o", "pipefail"], keep + self._here(text), code)

    def node(self, text: str) -> str:
        folder = self._folder / "node_modules"
        if not folder.exists():
            folder.symlink_to(ROOT / "tests" / "node_modules")
        return self._run([need("node", "nodejs"), "--input-type=module", "-"], EVENT_SOURCE + self._here(text), 0)

    def background(self, text: str, url: str) -> None:
        self._count += 1
        command, log = ["bash", "-euc", f"exec env {self._here(text)}"], self._folder.parent / f"{self._count}.log"
        process = Process(["setsid", "env", "-C", str(self._folder), *command], log, self._env)
        self._stack.enter_context(process)
        self._stack.callback(_kill_group, process.pid)  # the processes that it has started, too
        if url:
            wait_until(lambda: _answers(self._here(url)), f"{text} starts: see {log}", START_S)

    def browse(self, text: str) -> None:
        """Open the page at the first word's address, wait until it shows the rest of the line, and do the other lines:
        `fill LABEL = VALUE`, `click BUTTON`, `see TEXT`, `reload`, `sh COMMAND`."""
        first, *steps = text.strip().splitlines()
        url, _, wanted = first.partition(" ")
        with visited(self._browser(), self._here(url), network_may_fail=True) as page:  # it has no icon
            for step in (f"see {wanted}", *steps):
                do, _, what = step.partition(" ")
                match do:
                    case "see":
                        page.get_by_text(what).first.wait_for(timeout=START_MS)
                    case "fill":
                        label, value = what.split(" = ")
                        page.get_by_label(label).fill(value)
                    case "click":
                        page.get_by_role("button", name=what).click()
                    case "reload":
                        page.reload()
                    case "sh":
                        self.shell(what)
                    case _:
                        raise ValueError(f"unknown step {step!r}")

    def _run(self, command: list[str], text: str, code: int) -> str:
        done = subprocess.run(
            command, input=text, env=self._env, cwd=self._folder, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        assert done.returncode == code, f"ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return self._there(done.stdout)

    def _here(self, text: str) -> str:
        """Return a text of the page with ports of this session; start the server if it names that."""
        if not self._server_is_up and _SERVER.search(text):
            self._server_is_up = True
            url, log = self._env["PROGRESS_REDIS_URL"], self._folder.parent / "server.log"
            self._stack.enter_context(ApiReplica(url, log, int(self._ports[SERVER_PORT])))
        return _PORTS.sub(lambda found: found[1] + self._port(found[2]), text)

    def _there(self, text: str) -> str:
        for page_s, ours in self._ports.items():
            text = text.replace(f":{ours}", f":{page_s}")
        return text

    def _port(self, port: str) -> str:
        if port not in self._ports:
            self._ports[port] = str(free_port())
        return self._ports[port]


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
