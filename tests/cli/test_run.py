"""`run`: a command becomes an operation, and otherwise behaves as without it."""

import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import CLI, Shell, children, runs
from tests.forked import Forked
from tests.servers import RealRedis, wait_until
from tests.workers.harness import Broker

HOLD = 'echo up; read line; echo "$line"'
"""Prints `up`, and ends when it reads a line."""


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    broker = Broker(redis_url)
    yield broker
    broker.redis.close()


def shown(shell: Shell, id: str = "a") -> dict[str, Any]:
    (operation,) = shell.lines("show", id)
    return dict(operation)


@contextmanager
def running(shell: Shell, *words: str, **options: Any) -> Iterator["subprocess.Popen[bytes] | Forked"]:
    """A `run` of operation `a` whose command has printed its first line, `up`."""
    start = shell.open_interpreter if "preexec_fn" in options else shell.open
    with start("run", "--id", "a", *words, stdin=subprocess.PIPE, **options) as run:
        try:
            assert run.stdout
            assert run.stdout.readline() == b"up\n"
            yield run
        finally:
            run.terminate()  # it forwards this to the command


def running_to(shell: Shell, outputs: dict[str, Any], script: str) -> "subprocess.Popen[bytes]":
    """A `run` of operation `a` with the given outputs, otherwise pipes."""
    words = [*CLI, "run", "--id", "a", "--", "sh", "-c", script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(words, env=shell.env, cwd=shell.folder, **(pipes | outputs))


def rest(run: "subprocess.Popen[bytes] | Forked") -> tuple[bytes, bytes]:
    return run.communicate(timeout=60)


@pytest.mark.parametrize(
    ("script", "code", "status", "error"),
    [
        ("exit 0", 0, "succeeded", None),
        ("echo because >&2; exit 3", 3, "failed", ("exit-code", "sh ended with exit code 3:\nbecause")),
        ("kill -TERM $$", 143, "failed", ("signal", "sh was killed by SIGTERM")),
        ("kill -KILL $$", 137, "failed", ("signal", "sh was killed by SIGKILL")),
    ],
)
def test_it_ends_as_the_command_does(shell: Shell, script: str, code: int, status: str, error: Any) -> None:
    assert shell.run("run", "--id", "a", "--", "sh", "-c", script).returncode == code
    operation = shown(shell)
    assert (operation["status"], operation["kind"]) == (status, "sh")
    assert operation["result"] == ({"exit_code": 0} if error is None else None)
    assert operation["error"] == (error and {"type": error[0], "message": error[1]})


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126)])
def test_a_command_that_can_not_be_run_fails_the_operation(shell: Shell, command: str, code: int) -> None:
    assert shell.fails(code, "run", "--id", "a", "--", command).startswith(f"cannot start {command}: ")
    assert shown(shell)["status"] == "failed"


def test_output_is_passed_through_as_it_is(shell: Shell, broker: Broker) -> None:
    script = r"printf '\377\033[1m1/2\r2/2\n\n'; printf 'no newline' >&2"
    with shell.open("run", "--id", "a", "--pattern", "auto", "sh", "-c", script) as run:
        assert rest(run) == (b"\xff\x1b[1m1/2\r2/2\n\n", b"no newline")
    assert sorted(broker.logged("a")) == ["2/2", "no newline"]
    assert shown(shell)["progress"]["percent"] == 100


def test_input_is_the_commands(shell: Shell) -> None:
    data = os.urandom(300_000)
    with shell.open("run", "--id", "a", "cat", stdin=subprocess.PIPE) as run:
        assert run.communicate(data, timeout=120) == (data, b"")
        assert run.returncode == 0


def test_an_id_that_was_made_up_is_told_before_the_command_starts(shell: Shell) -> None:
    with shell.open("run", "sh", "-c", "echo first >&2; exit 3") as run:
        told, first = rest(run)[1].decode().splitlines()
    assert first == "first"
    id = told.rpartition(" ")[2]
    assert told == f"progress-broker: reporting as operation {id}; to follow it: progress-broker tail {id}"
    assert shown(shell, id)["status"] == "failed"


def test_an_id_that_can_not_be_told_stops_nothing(shell: Shell) -> None:
    with open("/dev/full", "wb") as full, shell.open_interpreter("run", "echo", "out", stderr=full) as run:
        assert (rest(run)[0], run.returncode) == (b"out\n", 0)


def test_what_it_is_called_can_be_said_and_what_follows_the_command_is_its_own(shell: Shell) -> None:
    words = ["--kind", "backup", "--title", "Nightly", "--owner", "alice", "--tag", "eu", "--tag", "db"]
    more = ["--parent", "parent", "--lease-s", "7"]
    shell.says("run", "--id", "parent", "true")
    assert shell.says("run", "--id", "a", *words, *more, "echo", "--id", "-h") == "--id -h\n"
    operation = shown(shell)
    assert {name: operation[name] for name in ("kind", "title", "owner", "tags", "parent")} == {
        "kind": "backup",
        "title": "Nightly",
        "owner": "alice",
        "tags": ["eu", "db"],
        "parent": "parent",
    }


@pytest.mark.parametrize("words", [["--pattern", "("], ["--id", "no id"], ["--tag", ""]])
def test_wrong_words_run_nothing(shell: Shell, words: list[str]) -> None:
    shell.fails(2, "run", *words, "touch", "begun")
    assert not (shell.folder / "begun").exists()


@pytest.mark.parametrize(
    ("words", "script"),
    [
        ([], "echo up; sleep 1000 & wait"),
        (["--grace-s", "0.2"], "trap '' TERM; echo up; while :; do sleep 1000; done"),
        ([], "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"),
        ([], "echo up; exec yes"),  # blocks, because nobody reads the output
    ],
)
def test_a_cancel_ends_the_command_and_all_it_started(shell: Shell, words: list[str], script: str) -> None:
    with running(shell, *words, "--", "sh", "-c", script) as run:
        (command,) = children(run.pid)
        started = [command, *children(command)]
        shell.says("cancel", "a", "--reason", "not tonight")
        wait_until(lambda: shown(shell)["status"] == "cancelled", "it ended, though nobody reads")
        assert b"operation a was cancelled: not tonight" in rest(run)[1]
        assert run.returncode == 3
    wait_until(lambda: not any(runs(pid) for pid in started), "what was killed has died")
    assert shown(shell)["error"]["message"] == "not tonight"


def test_one_that_is_being_cancelled_is_not_begun(shell: Shell) -> None:
    shell.says("publish", "a", "--create", "--kind", "touch", "--type", "progress", "--data", "{}")
    shell.says("cancel", "a")
    assert "was cancelled" in shell.fails(3, "run", "--id", "a", "touch", "begun")
    assert not (shell.folder / "begun").exists()
    assert shown(shell)["status"] == "cancelled"


def test_another_attempt_ends_the_command(shell: Shell, broker: Broker) -> None:
    with running(shell, "--lease-s", "0.3", "sh", "-c", "echo up; sleep 1000") as run:
        broker.next_attempt("a")
        assert b"attempt 2 of operation a has taken over" in rest(run)[1]
        assert run.returncode == 3


@pytest.mark.parametrize(
    ("number", "trap", "code"),
    [
        (signal.SIGINT, "", 130),
        (signal.SIGTERM, "", 143),
        (signal.SIGTERM, "trap 'echo leaving; exit 5' TERM; ", 5),
        (signal.SIGHUP, "trap 'echo leaving; exit 0' HUP; ", 0),
    ],
)
def test_signals_are_handed_on(shell: Shell, number: signal.Signals, trap: str, code: int) -> None:
    with running(shell, "--", "sh", "-c", f"{trap}echo up; while :; do sleep 0.05; done") as run:
        run.send_signal(number)
        assert rest(run)[0] == (b"leaving\n" if trap else b"")
        assert run.returncode == code
    assert (shown(shell)["status"], shown(shell)["error"]["message"]) == ("cancelled", number.name)


def test_signals_that_were_to_be_ignored_are(shell: Shell) -> None:
    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with running(shell, "sh", "-c", HOLD, preexec_fn=prepare) as run:
        run.send_signal(signal.SIGHUP)
        assert run.communicate(b"on\n", timeout=120)[0] == b"on\n"
        assert run.returncode == 0


def test_a_signal_that_comes_before_the_command_ends_us(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        shell.env["PROGRESS_REDIS_URL"] = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        with shell.open("run", "touch", "begun") as run:
            with silent.accept()[0]:
                run.send_signal(signal.SIGTERM)
                assert rest(run) == (b"", b"")
            assert run.returncode == 143
    assert not (shell.folder / "begun").exists()


def test_without_redis_the_command_is_run_unless_that_is_unwanted(
    lonely: Shell, caplog: pytest.LogCaptureFixture
) -> None:
    done = lonely.run("run", "sh", "-c", "echo out; exit 4")
    assert (done.returncode, done.stdout) == (4, "out\n")
    assert "progress could not be sent to Redis, so it is buffered" in caplog.text
    lonely.fails(5, "run", "--require", "touch", "begun")
    assert not (lonely.folder / "begun").exists()


def test_where_the_id_is_taken_the_command_is_run_unless_that_is_unwanted(shell: Shell) -> None:
    shell.says("run", "--id", "a", "true")
    done = shell.run("run", "--id", "a", "echo", "out")
    assert (done.returncode, done.stdout) == (0, "out\n")
    assert (
        "the command runs without being reported: the id a was already used; an id is valid for one run only"
        in done.stderr
    )
    shell.fails(2, "run", "--id", "a", "--require", "touch", "begun")
    assert not (shell.folder / "begun").exists()


def test_a_redis_that_goes_away_is_waited_for_by_the_report_alone(shell: Shell, tmp_path: Path) -> None:
    with RealRedis(tmp_path / "r", keep=True) as redis:
        shell.env["PROGRESS_REDIS_URL"] = redis.url
        with running(shell, "sh", "-c", f"{HOLD}; read line; exit 6") as run:
            assert run.stdin
            assert run.stdout
            redis.stop()
            run.stdin.write(b"on\n")
            run.stdin.flush()
            assert run.stdout.readline() == b"on\n"
            redis.start()
            rest(run)
            assert run.returncode == 6
        assert shown(shell)["status"] == "failed"


def test_an_operation_that_redis_lost_is_created_again(shell: Shell, broker: Broker) -> None:
    with running(shell, "--lease-s", "0.1", "sh", "-c", f"{HOLD}; exit 6") as run:
        broker.redis.flushall()
        time.sleep(0.3)
        said = run.communicate(b"on\n", timeout=120)[1]
        assert b"Redis lost operation a, as in a failover: it is created again" in said
        assert run.returncode == 6
    assert shown(shell)["status"] == "failed"


def test_who_reads_no_more_ends_the_command_as_without_us(shell: Shell) -> None:
    with shell.open_interpreter("run", "--id", "a", "yes") as run:
        assert run.stdout
        assert run.stderr
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(120) == 141
        assert run.stderr.read() == b""
    assert shown(shell)["error"]["message"] == "yes was killed by SIGPIPE"


def test_it_needs_no_output_of_its_own(shell: Shell, broker: Broker) -> None:
    with shell.open_interpreter("run", "--id", "a", "echo", "out", preexec_fn=lambda: os.close(1)) as run:
        assert run.wait(120) == 0
    assert broker.logged("a") == ["out"]


@pytest.mark.parametrize(("to", "name"), [("stdout", "output"), ("stderr", "error")])
@pytest.mark.parametrize(("script", "code"), [("head -c 30000 /dev/zero", 1), ("head -c 30000 /dev/zero; exit 4", 4)])
def test_output_that_can_not_be_written_fails_the_operation(
    shell: Shell, to: str, name: str, script: str, code: int
) -> None:
    script = f"({script}) >&2" if to == "stderr" else script
    with open("/dev/full", "wb") as full, running_to(shell, {to: full}, script) as run:
        said = rest(run)[1]
        assert run.returncode == code
    why = f"standard {name} can't be written: No space left on device"
    if to == "stdout":
        assert why in said.decode()
    operation = shown(shell)
    assert (operation["status"], operation["error"]["message"]) == ("failed", why)


@pytest.mark.parametrize("in_one", [True, False])
def test_where_both_outputs_are_one_their_order_is_kept(shell: Shell, broker: Broker, in_one: bool) -> None:
    script = "for i in 1 2 3; do echo out-$i; echo err-$i >&2; done; exit 5"
    with running_to(shell, {"stderr": subprocess.STDOUT if in_one else subprocess.PIPE}, script) as run:
        out, err = rest(run)
        assert run.returncode == 5
    levels = [line["level"] for line in broker.data("a", "log")]
    if in_one:
        assert out.decode().split() == ["out-1", "err-1", "out-2", "err-2", "out-3", "err-3"]
        assert set(levels) == {"info"}
    else:
        assert err.decode().split() == ["err-1", "err-2", "err-3"]
        assert levels.count("warning") == 3
    assert shown(shell)["error"]["message"].endswith("err-3")


def test_killed_it_takes_the_command_with_it(shell: Shell) -> None:
    with running(shell, "--", "sh", "-c", "echo up; exec sleep 1000") as run:
        (command,) = children(run.pid)
        run.kill()
        wait_until(lambda: not runs(command), "the command has ended")


# On a terminal.


class Terminal:
    """A person at a shell with job control."""

    def __init__(self, shell: Shell) -> None:
        self._ours, theirs = pty.openpty()
        self.seen = b""
        self._bash = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noediting", "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=shell.folder,
            env=shell.env | {"PS1": "$ ", "TERM": "dumb"},
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def sees(self, text: str) -> bytes:
        """Wait for a text after what was waited for last; return what was between the two."""

        def read() -> bool:
            if text.encode() not in self.seen and select.select([self._ours], [], [], 1)[0]:
                self.seen += os.read(self._ours, 65_536)
            return text.encode() in self.seen

        try:
            wait_until(read, f"{text!r} is shown")
        except AssertionError as error:
            raise AssertionError(f"{error}, but {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text.encode())
        return before

    def close(self) -> None:
        self._bash.kill()
        self._bash.wait(120)
        os.close(self._ours)


@pytest.fixture
def terminal(shell: Shell) -> Iterator[Terminal]:
    terminal = Terminal(shell)
    yield terminal
    terminal.close()


RUN = " ".join([*CLI, "run", "--id", "a", "--"])


def test_on_a_terminal_the_command_can_ask(terminal: Terminal, shell: Shell) -> None:
    terminal.type(f"{RUN} sh -c 'read line; echo got-$line; read line; exit 7'; echo code-$?\n")
    terminal.type("ada\n")
    terminal.sees("got-ada")
    terminal.type("\x03")
    terminal.sees("code-130")
    assert shown(shell)["status"] == "cancelled"


# A shell with a trap might get the signal before it starts the command that it waits for. Then it waits forever.
HEARS = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("up-2", flush=True)
signal.sigwait([signal.SIGINT])
print("heard-it", flush=True)
if signal.sigtimedwait([signal.SIGINT], 0.2):
    print("heard-it", flush=True)
sys.exit(9)
"""


def test_on_a_terminal_ctrl_c_reaches_the_command_once(terminal: Terminal, shell: Shell) -> None:
    (shell.folder / "hears.py").write_text(HEARS)
    terminal.type(f"{RUN} {sys.executable} hears.py; echo code-$?\n")
    terminal.sees("up-2")
    terminal.type("\x03")
    terminal.sees("heard-it")
    assert b"heard-it" not in terminal.sees("code-9")
    assert shown(shell)["status"] == "cancelled"


def test_on_a_terminal_ctrl_z_stops_the_command_and_fg_continues_it(terminal: Terminal, shell: Shell) -> None:
    terminal.type(f"{RUN} sh -c 'echo $$ > pid; echo up-$((1 + 1)); sleep 1000; echo on'\n")
    terminal.sees("up-2")
    pid = int((shell.folder / "pid").read_text())

    def state() -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    # `sh` starts a command by vfork. Stopped before it has become `sleep`, the new process would hold up its parent,
    # which then can't be stopped: under any shell, the job would hang.
    wait_until(lambda: children(pid, mentioning="sleep\0"), "its command runs")
    terminal.type("\x1a")
    terminal.sees("Stopped")
    wait_until(lambda: state() == "T", "it is stopped")
    terminal.type("fg\n")
    wait_until(lambda: state() == "S", "it goes on")
    terminal.type("\x03")
    wait_until(lambda: shown(shell)["status"] == "cancelled", "it ended")


def test_in_the_background_a_command_that_asks_waits_for_fg(terminal: Terminal, shell: Shell) -> None:
    terminal.type(f"set -b; {RUN} sh -c 'read line; echo got-$line' &\n")
    terminal.sees("Stopped")
    terminal.type("fg\n")
    terminal.type("ada\n")
    terminal.sees("got-ada")
    wait_until(lambda: shown(shell)["status"] == "succeeded", "it ended")
