"""Commands as part of the work: their output and their end are reported, and no process is left behind."""

import asyncio
import gc
import inspect
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from progress_broker.model.operation import Status
from progress_workers import AsyncOperation, Cancelled, Gone, InvalidInput, Operation, current
from progress_workers.processes import (
    ExitCode,
    KilledBySignal,
    ProcessFailed,
    ProcessTimedOut,
    run_process,
    run_process_async,
)
from progress_workers.processes.output import LEAST_AT_ONCE, MOST_AT_ONCE, Output
from progress_workers.processes.run import RunOptions, make_outputs
from progress_workers.processes.stream import Stream
from tests.recordings.play import Sheet
from tests.servers import RealRedis, eventually, wait_until
from tests.workers.harness import Broker, finished, python

FOR_EVER = 1000


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def zombies() -> list[str]:
    """Our zombie child processes."""
    stats = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # other processes may end meanwhile
            stats.append(stat.read_text("utf-8", "replace"))
    return [stat for stat in stats if stat.rpartition(")")[2].split()[:2] == ["Z", str(os.getpid())]]


def child(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@contextmanager
def operation(broker: Broker) -> Iterator[Operation]:
    with Operation.start("import", id="op", settings=broker.settings, interval_s=0.001) as op:
        yield op


def logged(broker: Broker) -> list[tuple[str, str]]:
    return [(line["level"], line["message"]) for line in broker.data("op", "log")]


def progress(broker: Broker) -> dict[str, Any]:
    told = broker.data("op", "progress")
    return dict(told[-1]) if told else {}


@pytest.mark.parametrize(
    "wrong",
    [{"pattern": "("}, {"pattern": r"(?P<rows>\d+)"}, {"ansi": "some"}, {"grace_s": -1}, {"grace_s": float("nan")}],
)
def test_what_can_not_be_meant_is_rejected(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        run_process(["true"], **wrong)


@pytest.mark.parametrize("command", ["ls -l", b"ls", []])
def test_a_command_is_a_list_of_words(command: Any) -> None:
    with pytest.raises(InvalidInput, match="must be a list of words"):
        run_process(command)


# A command from its start to its end.


def test_what_a_command_prints_is_the_log(broker: Broker) -> None:
    with operation(broker):
        code = run_process(["sh", "-c", "echo one; echo; sleep 0.05; echo two >&2; sleep 0.05; printf three"])
    assert code == 0
    assert logged(broker) == [("info", "one"), ("warning", "two"), ("info", "three")]


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        (["true"], []),
        (["sh", "-c", "exit 3"], []),
        (["cat"], []),
        (["printf", "\\033[31mred\\033[0m"], ["red"]),
        (["head", "-c", "100000", "/dev/zero"], []),
        (["printf", "\\377\\001\\000\\n"], ["\ufffd"]),
        (["sh", "-c", "yes | head -n 3"], ["y", "y", "y"]),
        (["sh", "-c", "pwd; echo $NAME"], ["/", "ada"]),
    ],
)
def test_whatever_it_prints_is_taken(broker: Broker, command: list[str], seen: list[str]) -> None:
    env = os.environ | {"NAME": "ada"}
    expected = subprocess.run(command, cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
    with operation(broker):
        assert run_process(command, cwd="/", env=env) == expected
    assert broker.logged("op") == seen


def test_a_progress_bar_moves_the_operation_and_its_last_form_is_logged(broker: Broker) -> None:
    code = r"""
import sys
for done in range(4):
    print(f"\r{25 * done:3}%|{'#' * done:3}| {done}/4 [00:0{done}]", end="", flush=True, file=sys.stderr)
    sys.stdin.readline()
print("\r100%|####| 4/4 [00:04]", file=sys.stderr)
"""
    reading, writing = os.pipe()
    with operation(broker) as op:

        def press() -> None:
            with os.fdopen(writing, "wb", buffering=0) as button:
                for done in range(4):
                    wait_until(lambda: progress(broker).get("current") == done, "it moved")  # noqa: B023 - in here
                    told = progress(broker)
                    assert (told["total"], told["message"].partition("%")[0]) == (4, str(25 * done))
                    button.write(b"\n")

        with threaded(press):
            run_process(child(code), operation=op, pattern="bars", stdin=reading)
    os.close(reading)
    assert logged(broker) == [("warning", "100%|####| 4/4 [00:04]")]
    assert progress(broker)["percent"] == 100


def test_a_bar_that_follows_another_begins_anew(broker: Broker) -> None:
    first = r"Counting: 50%% (1/2)\rCounting: 100%% (2/2)\nReceiving: 10%%\r"
    script = rf"printf '{first}'; read line; printf 'Receiving: 100%%\n'"
    reading, writing = os.pipe()
    with operation(broker) as op:

        def press() -> None:
            try:
                wait_until(lambda: progress(broker).get("percent") == 10, "the second bar is shown")
            finally:
                os.write(writing, b"\n")

        with threaded(press):
            run_process(["sh", "-c", script], operation=op, pattern="bars", stdin=reading)
    for descriptor in (reading, writing):
        os.close(descriptor)
    told = [(line["current"], line["total"], line["percent"]) for line in broker.data("op", "progress")]
    assert told[-2:] == [(0, None, 10), (0, None, 100)]
    assert 100 not in [percent for _, _, percent in told[:-1]]
    assert broker.logged("op") == ["Counting: 100% (2/2)", "Receiving: 100%"]


@contextmanager
def threaded(work: Any) -> Iterator[None]:
    """Run work in a thread during the block; its exception is raised here."""
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        if failed:
            raise failed[0]


@pytest.mark.parametrize(
    ("pattern", "said", "told"),
    [
        (None, r"1/9\n1/9\r2/9\n", (0, None, None, "2/9")),
        ("bars", r"1/9\n", (None, None, None, None)),
        ("bars", r"1/9\r2/9\n", (2, 9, None, "2/9")),
        ("auto", r"1/9\n", (1, 9, None, None)),
        (r"(?P<current>\d+) (?P<unit>\w+): (?P<message>\w+)", r"7 rows: ada\n", (7, None, "rows", "ada")),
    ],
)
def test_the_pattern_says_which_lines_move_the_progress(
    broker: Broker, pattern: str | None, said: str, told: tuple[object, ...]
) -> None:
    with operation(broker):
        run_process(["printf", said], pattern=pattern)
    assert tuple(progress(broker).get(name) for name in ("current", "total", "unit", "message")) == told


def test_each_line_in_its_last_form_is_handed_over(broker: Broker) -> None:
    heard: list[tuple[str, str]] = []
    command = ["sh", "-c", r"printf 'a\n\n1/2\r2/2\n'; sleep 0.05; echo b >&2"]
    run_process(command, on_line=lambda text, name: heard.append((name, text)))
    assert heard == [("stdout", "a"), ("stdout", ""), ("stdout", "2/2"), ("stderr", "b")]


@pytest.mark.parametrize(
    ("script", "kind", "error"),
    [
        ("echo fine; echo because >&2; exit 3", ExitCode, ("exit-code", "sh ended with exit code 3:\nbecause")),
        ("kill -9 $$", KilledBySignal, ("signal", "sh was killed by SIGKILL")),
        ("kill -40 $$", KilledBySignal, ("signal", "sh was killed by signal 40")),
    ],
)
def test_a_failure_can_fail_the_operation(
    broker: Broker, script: str, kind: type[ProcessFailed], error: tuple[str, str]
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as raised, operation(broker):
        run_process(["sh", "-c", script], check=True)
    assert type(raised.value) is kind
    assert raised.value.returncode == subprocess.run(["sh", "-c", script], capture_output=True).returncode
    told = broker.show("op").error
    assert told is not None
    assert (told["type"], told["message"]) == error


def test_only_the_last_lines_of_stderr_are_told() -> None:
    with pytest.raises(ExitCode) as raised:
        run_process(["sh", "-c", "seq 1000 >&2; exit 1"], check=True)
    assert raised.value.stderr.split("\n") == [str(number) for number in range(991, 1001)]


@pytest.mark.parametrize(
    ("command", "error", "named"),
    [(["no-such-command"], FileNotFoundError, "no-such-command"), (["/etc/passwd"], PermissionError, "/etc/passwd")],
)
def test_a_command_that_can_not_be_run_is_named(command: list[str], error: type[OSError], named: str) -> None:
    with pytest.raises(error, match=named):
        run_process(command)


def test_a_command_that_closes_its_outputs_is_waited_for() -> None:
    assert run_process(["sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 7"]) == 7


def test_who_keeps_the_outputs_open_is_not_waited_for() -> None:
    heard: list[str] = []
    began = time.monotonic()
    run_process(["sh", "-c", f"sleep {FOR_EVER} & echo $!; printf last"], on_line=lambda text, _: heard.append(text))
    assert time.monotonic() - began < FOR_EVER / 10
    assert heard[1:] == ["last"]
    os.kill(int(heard[0]), signal.SIGKILL)


def test_who_keeps_printing_is_not_waited_for_but_what_the_command_said_is_heard() -> None:
    heard: list[str] = []
    script = "yes >&2 & echo $!; seq 20000"
    run_process(["sh", "-c", script], on_line=lambda text, name: heard.append(text) if name == "stdout" else None)
    assert heard[-1] == "20000"
    wait_until(lambda: not runs(int(heard[0])), "nobody reads it any more")


# Early ends.

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(1000)"
)
POLITE = """
import signal, sys, time
def leave(*_):
    print("leaving", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
while True:  # a signal just before one long wait would be handled after it
    time.sleep(0.05)
"""


@pytest.mark.parametrize(("code", "grace_s", "last"), [(POLITE, 60, "leaving"), (STUBBORN, 0.2, "up")])
def test_a_cancel_ends_the_command(broker: Broker, code: str, grace_s: float, last: str) -> None:
    pids: list[int] = []
    # The shell waits, so the process that catches SIGTERM is another one of its group.
    command = ["sh", "-c", 'echo $$; "$@" & echo $!; wait', "sh", *child(code)]

    def heard(text: str, _: str) -> None:
        if text.isdigit():
            pids.append(int(text))
        elif text == "up":
            broker.cancel("op", "not tonight")

    with pytest.raises(Cancelled, match="not tonight"), operation(broker):
        run_process(command, on_line=heard, grace_s=grace_s)
    assert len(pids) == 2
    wait_until(
        lambda: not any(runs(pid) for pid in pids), "what was killed has died"
    )  # init is notified, not this process
    ended = broker.show("op")
    assert ended.status is Status.CANCELLED
    assert broker.logged("op")[-1] == last


def test_a_command_that_is_not_wanted_any_more_is_not_begun(broker: Broker, tmp_path: Path) -> None:
    with operation(broker) as op:
        broker.cancel("op")
        wait_until(lambda: op.cancelled, "the cancel arrives")
        with pytest.raises(Cancelled):
            run_process(["touch", str(tmp_path / "begun")])
    assert not (tmp_path / "begun").exists()


def test_an_operation_that_is_deleted_ends_the_command(broker: Broker) -> None:
    def heard(*_: str) -> None:
        broker.delete("op")
        current().log("heard")  # the next report notices the deletion

    with pytest.raises(Gone), operation(broker):
        run_process(["sh", "-c", f"echo up; sleep {FOR_EVER}"], on_line=heard)


def test_what_a_callback_raises_ends_the_command() -> None:
    pids: list[int] = []

    def fail(text: str, _: str) -> None:
        pids.append(int(text))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_process(["sh", "-c", f"echo $$; sleep {FOR_EVER}"], on_line=fail)
    assert len(pids) == 1
    wait_until(lambda: not runs(pids[0]), "it has died")


STUBBORN_FILE = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: open(sys.argv[1], "w").close())
print(os.getpid(), flush=True)
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("command", [["sh", "-c", "echo $$; sleep 1000"], [*child(STUBBORN_FILE), "asked"]])
def test_ctrl_c_leaves_no_command_behind(storage: str, tmp_path: Path, command: list[str]) -> None:
    """Interrupt twice if the command does not end at the first request."""
    code = f"""
        from progress_workers.processes import run_process
        print("pid", flush=True)
        run_process({command!r}, on_line=lambda text, _: print(text, flush=True), grace_s=60, cwd={str(tmp_path)!r})
    """
    with python(storage, code) as parent:
        assert parent.stdout
        assert parent.stderr
        assert parent.stdout.readline() == "pid\n"
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGINT)
        if "asked" in command:
            wait_until((tmp_path / "asked").exists, "it was asked to end")
            parent.send_signal(signal.SIGINT)
        assert parent.wait(60) == -signal.SIGINT
        assert "KeyboardInterrupt" in parent.stderr.read()
    wait_until(lambda: not runs(pid), "it has died")


# Cost and environments.


def test_nothing_is_left_of_it() -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    def once() -> None:
        run_process(["sh", "-c", "echo out; echo err >&2; exit 1"])
        for wrong in (["no-such-command"], []):
            with suppress(OSError, InvalidInput):
                run_process(wrong)
        with suppress(ZeroDivisionError):
            run_process(["echo", "1"], on_line=lambda *_: 1 / 0)

    def no_more() -> bool:
        return all(now <= then for now, then in zip(held(), before, strict=True))

    once()
    gc.collect()  # release what earlier tests left, so that it does not change the count later
    before, dead = held(), zombies()
    for _ in range(5):
        once()
    wait_until(no_more, f"no more is left than {before}", 10)
    assert set(zombies()) <= set(dead)


def test_much_output_is_taken_fast_and_in_bounded_memory(storage: str, broker: Broker) -> None:
    code = f"""
        import time
        from progress_workers import Operation
        from progress_workers.processes import run_process
        with Operation.start("import", id="op"):
            began = time.monotonic()
            for command in ("yes {"x" * 199} | head -c 80000000", "head -c 20000000 /dev/zero"):
                assert run_process(["sh", "-c", command]) == 0
            assert time.monotonic() - began < 100, time.monotonic() - began
        # Not getrusage: its maximum starts with that of the parent process.
        print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
    """
    assert int(finished(python(storage, code))) < 150_000
    last = broker.data("op", "log")[-1]
    assert last["message"] == "x" * 199


def test_of_more_lines_than_can_be_sent_the_last_are_told(storage: str) -> None:
    broker = Broker(storage, history_length=2 * MOST_AT_ONCE)
    with operation(broker) as op:
        output = Output("stdout", op)
        output.feed(b"".join(b"%d\n" % number for number in range(MOST_AT_ONCE + 7)))
        output.feed(b"more\n" * MOST_AT_ONCE)
        output.feed(b"last\n")
    said, *lines = broker.logged("op")
    assert said == "lines left out because they arrived faster than they could be sent: 7"
    assert lines[:MOST_AT_ONCE] == [str(number) for number in range(7, MOST_AT_ONCE + 7)]
    assert "lines left out" in lines[MOST_AT_ONCE]
    assert lines[-LEAST_AT_ONCE - 1 :] == ["more"] * LEAST_AT_ONCE + ["last"]
    broker.redis.close()


def test_a_redis_that_is_away_keeps_no_command_waiting(kept_redis: RealRedis) -> None:
    broker = Broker(kept_redis.url)
    with operation(broker):
        kept_redis.stop()
        began = time.monotonic()
        run_process(["seq", "20000"])
        assert time.monotonic() - began < 60
        kept_redis.start()
    assert broker.logged("op")[-1] == "20000"
    broker.redis.close()


def test_without_an_operation_its_output_passes_through(capfd: pytest.CaptureFixture[str]) -> None:
    print("first")
    assert run_process(["sh", "-c", r"printf '1/2\r2/2\n'; echo err >&2; exit 4"]) == 4
    assert capfd.readouterr() == ("first\n1/2\r2/2\n", "err\n")


def test_within_an_operation_its_output_is_the_log_alone(broker: Broker, capfd: pytest.CaptureFixture[str]) -> None:
    with operation(broker):
        run_process(["sh", "-c", "echo out; echo err >&2"])
    assert capfd.readouterr() == ("", "")


def test_without_an_operation_output_that_can_not_be_written_is_an_error(storage: str) -> None:
    code = """
        from progress_workers.processes import run_process
        run_process(["head", "-c", "30000", "/dev/zero"])
    """
    with open("/dev/full", "wb") as full, python(storage, code, stdout=full) as process:
        _, err = process.communicate(timeout=240)
        assert process.returncode == 1
        assert "No space left on device" in err


async def test_from_asyncio_it_runs_in_a_thread_and_knows_the_operation(broker: Broker) -> None:
    async with AsyncOperation.start("import", id="op", settings=broker.settings):
        assert await asyncio.to_thread(run_process, ["sh", "-c", "echo out; exit 4"]) == 4
    assert broker.logged("op") == ["out"]


async def test_from_asyncio_a_cancel_ends_it(broker: Broker) -> None:
    pids: list[int] = []

    def heard(text: str, _: str) -> None:
        pids.append(int(text))
        broker.cancel("op")

    with pytest.raises(Cancelled):
        async with AsyncOperation.start("import", id="op", settings=broker.settings):
            await asyncio.to_thread(run_process, ["sh", "-c", f"echo $$; sleep {FOR_EVER}"], on_line=heard)
    await asyncio.to_thread(wait_until, lambda: not runs(pids[0]), "the command has ended")


def test_a_process_that_forks_and_its_child_run_commands(storage: str, broker: Broker) -> None:
    code = """
        import os, threading
        from progress_workers import Operation
        from progress_workers.processes import run_process
        with Operation.start("import", id="op"):
            up = threading.Event()
            options = {"on_line": lambda *_: up.set()}
            other = threading.Thread(target=run_process, args=(["sh", "-c", "echo up; read x"],), kwargs=options)
            reading, writing = os.pipe()
            options["stdin"] = reading
            other.start()
            up.wait()
            pid = os.fork()
            if pid == 0:
                os._exit(run_process(["sh", "-c", "exit 5"]))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
            os.write(writing, b"\\n")
            other.join()
            assert run_process(["sh", "-c", "echo parent; exit 6"]) == 6
    """
    finished(python(storage, code))
    assert broker.logged("op") == ["parent"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ExitCode(3, ["sh"], ["because"]), "sh ended with exit code 3:\nbecause"),
        (KilledBySignal(-15, ["sh"]), "sh was killed by SIGTERM"),
        (ProcessFailed(2, ["sh"]), "sh ended with exit code 2"),
    ],
)
def test_a_failure_may_be_sent_to_another_process(error: ProcessFailed, text: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == text
    assert (again.returncode, again.cmd, again.stderr) == (error.returncode, error.cmd, error.stderr)


@pytest.mark.parametrize("grace_s", ["x", None, -1, float("nan")])
def test_a_grace_that_is_none_is_rejected(grace_s: Any) -> None:
    with pytest.raises(InvalidInput, match="grace_s must be a number of seconds"):
        run_process(["true"], grace_s=grace_s)


def test_a_copy_that_would_wait_is_put_off() -> None:
    source, command = os.pipe()
    reader, copy = os.pipe()
    os.write(copy, b"x" * 65_536)  # full
    os.write(command, b"y" * 10)
    with os.fdopen(source, "rb", buffering=0) as pipe:
        stream = Stream(pipe, Output("stdout", current()), copy)
        carrying = threading.Thread(target=stream.go_on, daemon=True)
        carrying.start()
        carrying.join(30)
        went_on = not carrying.is_alive()
        os.read(reader, 65_536)
        carrying.join()
        assert went_on
        assert stream.wants is not None
        stream.go_on()
        assert os.read(reader, 100) == b"y" * 10
    for descriptor in (command, reader, copy):
        os.close(descriptor)


def test_a_command_that_takes_too_long_is_ended(broker: Broker) -> None:
    code = "import sys, time; print('working', file=sys.stderr, flush=True); time.sleep(1000)"
    with pytest.raises(ProcessTimedOut, match=r"longer than 0\.5 s") as late, operation(broker):
        run_process(child(code), timeout=0.5)
    assert isinstance(late.value, subprocess.TimeoutExpired)
    assert late.value.timeout == 0.5
    assert str(pickle.loads(pickle.dumps(late.value))) == str(late.value)
    error = broker.show("op").error
    assert error is not None
    assert error["type"] == "timeout"
    assert run_process(child("pass"), timeout=FOR_EVER) == 0
    with pytest.raises(InvalidInput, match="timeout"):
        run_process(child("pass"), timeout=0)


def test_a_command_that_ignores_the_end_of_its_time_is_killed() -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"
    with pytest.raises(ProcessTimedOut):
        run_process(child(code), timeout=0.5, grace_s=0.1)
    assert not zombies()


def test_with_echo_the_output_is_shown_too(broker: Broker, capfd: pytest.CaptureFixture[str]) -> None:
    with operation(broker):
        run_process(child("import sys; print('out'); print('err', file=sys.stderr)"), echo=True)
    assert capfd.readouterr() == ("out\n", "err\n")
    assert sorted(logged(broker)) == [("info", "out"), ("warning", "err")]


async def test_in_asyncio_the_loop_goes_on_and_the_current_operation_is_known(broker: Broker) -> None:
    async with AsyncOperation.start("import", id="op", settings=broker.settings):
        ticks = asyncio.create_task(asyncio.sleep(0))
        code = await run_process_async(child("print('x'); raise SystemExit(3)"), on_line=lambda line, name: None)
        assert ticks.done()
        assert code == 3
        with pytest.raises(ExitCode):
            await run_process_async(child("raise SystemExit(3)"), check=True)
    assert logged(broker) == [("info", "x")]


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelling_the_task_ends_the_command(times: int, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN);" if times == 2 else ""
    code = f"import os, signal, time; {ignore} open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    task = asyncio.create_task(run_process_async(child(code), grace_s=FOR_EVER))
    await eventually(lambda: told.exists() and told.read_text(), "it runs")
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(int(told.read_text()))


async def test_a_cancel_of_the_operation_ends_the_command_of_its_task(broker: Broker) -> None:
    async def work() -> None:
        async with AsyncOperation.start("import", id="op", lease_s=None, settings=broker.settings):
            canceller = asyncio.create_task(asyncio.to_thread(broker.cancel, "op", "enough"))
            await run_process_async(child("import time; time.sleep(1000)"))
            await canceller

    with pytest.raises(Cancelled, match="enough"):
        await work()
    assert broker.show("op").status is Status.CANCELLED


def test_the_options_of_both_are_the_same() -> None:
    given = inspect.signature(run_process).parameters.keys() - {"command"}
    assert given == get_type_hints(RunOptions).keys()


def test_in_a_notebook_the_output_goes_to_the_cell(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its stream names the terminal of the notebook's server; what this process's descriptors get, the cell shows."""
    with (tmp_path / "terminal").open("w") as terminal, pytest.MonkeyPatch.context() as patch:
        of_notebook = type("OutStream", (io.StringIO,), {"fileno": lambda _: terminal.fileno()})
        of_notebook.__module__ = "ipykernel.iostream"
        patch.setattr(sys, "stdout", of_notebook())
        assert run_process(["echo", "hi"]) == 0
    assert capfd.readouterr().out == "hi\n"
    assert (tmp_path / "terminal").read_text() == ""


def test_a_bar_and_its_line_are_told_together() -> None:
    """Otherwise people might see the new bar with the line before."""
    sheet = Sheet()
    _, output = make_outputs(sheet, pattern="bars", ansi="strip")
    told = []
    look = sheet._look

    def look_and_note() -> None:
        look()
        told.append((sheet.bars[-1].current, sheet.messages[-1]))

    sheet._look = look_and_note  # type: ignore[method-assign]
    for done in (1, 2, 3, 4):  # each is read when the next one overwrites it
        output.feed(f"\r{25 * done:3}%|{'#' * done:3}| {done}/4".encode())
    assert told == [(1, "25%|#  | 1/4"), (2, "50%|## | 2/4"), (3, "75%|###| 3/4")]
