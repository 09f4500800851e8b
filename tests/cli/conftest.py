"""The command line as people run it: real processes and a real redis-server."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from progress_cli import app
from tests.forked import Forked
from tests.servers import START_S, CommandLine, Process, wait_until

CLI = [sys.executable, "-P", "-m", "progress_cli"]


class Started(subprocess.Popen[bytes]):
    """A command that is killed when a test fails; otherwise its block would wait forever."""

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self.kill()
        super().__exit__(*error)


class Shell:
    """Runs commands in their own environment, in an empty directory."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PROGRESS_")}
        self.env = clean | {f"PROGRESS_{name.upper()}": value for name, value in settings.items()}
        self._logs = 0

    def run(self, *words: str, stdin: bytes = b"") -> "subprocess.CompletedProcess[str]":
        """Run a command: those that start others in a process of their own, the quick ones within this one."""
        files = [self.folder / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(stdin)
        with files[0].open() as source, files[1].open("w") as output, files[2].open("w") as errors:
            if words[:1] in (("serve",), ("demo",)):
                forked = Forked(words, files[1], self.env, errors=files[2], cwd=self.folder)
                code = forked.wait(START_S)
            else:
                code = self._run_here(words, source, output, errors)
        out, err = (file.read_text("utf-8") for file in files[1:])
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(words, code, out, err)

    def _run_here(self, words: tuple[str, ...], *streams: TextIO) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for name in os.environ.keys() - self.env.keys():
                patch.delenv(name)
            for name, value in self.env.items():
                patch.setenv(name, value)
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                patch.setattr(sys, name, stream)
            patch.setattr(sys, "argv", ["progress-broker", *words])
            with pytest.raises(SystemExit) as ended:
                app.run()
            assert isinstance(ended.value.code, int | None)
            return ended.value.code or 0

    def says(self, *words: str, stdin: bytes = b"") -> str:
        done = self.run(*words, stdin=stdin)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def lines(self, *words: str) -> list[Any]:
        return [json.loads(line) for line in self.says(*words, "--json").splitlines()]

    def fails(self, code: int, *words: str, stdin: bytes = b"") -> str:
        """Return the one line that a command complains with."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("progress-broker: Redis: ")]
        assert line.startswith("progress-broker: ")
        return line.removeprefix("progress-broker: ")

    def on_terminal(self, columns: int, *words: str) -> str:
        """Run a command to its end on a terminal of this width; return what it drew, without colours."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        env = {name: value for name, value in self.env.items() if name != "COLUMNS"} | {"TERM": "xterm"}
        shown = b""
        with Forked(words, theirs, env, stdin=theirs, cwd=self.folder) as command:
            os.close(theirs)
            try:
                while chunk := os.read(ours, 65_536):
                    shown += chunk
            except OSError:  # the command has ended
                pass
            command.wait(START_S)
        os.close(ours)
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown.decode()).replace("\r\n", "\n")

    def process(self, *words: str, **env: str) -> CommandLine:
        return CommandLine(list(words), self._log(), self.env | env)

    def interpreter(self, *words: str, **env: str) -> Process:
        """Start it as people do, with all that it takes to load it."""
        return Process([*CLI, *words], self._log(), self.env | env)

    def _log(self) -> Path:
        self._logs += 1
        return self.folder / f"output-{self._logs}"

    def open(self, *words: str, **streams: Any) -> Forked:
        """Start it with pipes for its outputs, or with other streams."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        return Forked(words, streams.pop("stdout"), self.env, errors=streams.pop("stderr"), cwd=self.folder, **streams)

    def open_interpreter(self, *words: str, **options: Any) -> Started:
        """Start it likewise as people do: for what the end of an interpreter may add, or a signal while it loads."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return Started([*CLI, *words], env=self.env, cwd=self.folder, **pipes | options)


@pytest.fixture
def shell(redis_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, redis_url=redis_url, data_dir=str(tmp_path / "data"))


@pytest.fixture
def lonely(tmp_path: Path) -> Shell:
    """A shell that knows only the embedded Redis of its data directory."""
    return Shell(tmp_path, data_dir=str(tmp_path / "data"))


@pytest.fixture
def served(lonely: Shell) -> Iterator[Process]:
    with lonely.process("serve", "--port", "0") as server:
        ready(server)
        yield server


def ready(server: Process) -> str:
    """Wait until a server prints its address, and return it."""

    def told() -> bool:
        assert server.popen is not None
        assert server.popen.poll() is None, server.output()
        return "serving on http" in server.output()

    wait_until(told, "serve is ready", START_S)
    return server.output().partition("serving on ")[2].split()[0]


def children(pid: int, mentioning: str = "") -> list[int]:
    """The living children of a process whose command lines contain a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(parent) == pid and state != "Z" and mentioning.encode() in command:
                found.append(int(entry.name))
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def mentioning(text: str) -> list[str]:
    """The command lines and environments of running processes that contain a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                said = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in said:
                found.append(said.replace(b"\0", b" ").decode("utf-8", "replace"))
    return found
