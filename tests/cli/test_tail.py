"""`tail`: its output and its exit codes."""

import json
import os
import pty
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.forked import Forked
from tests.servers import RealRedis, wait_until


def end(shell: Shell, id: str, status: str) -> None:
    shell.says("publish", id, "--type", "end", "--data", json.dumps({"status": status}))


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_it_ends_as_the_operation_did(shell: Shell, status: str, code: int) -> None:
    shell.says("publish", "a", "--create", "--type", "progress", "--data", '{"percent": 40}')
    with shell.open("tail", "a") as tail:
        assert tail.stdout
        assert tail.stdout.readline() == b"a: now running  40.0 %\n"
        end(shell, "a", status)
        assert tail.wait(120) == code
        assert tail.stdout.read().decode().split()[1:3] == ["end", status]
    again = shell.run("tail", "a")
    assert again.returncode == code
    assert again.stdout.startswith(f"a: now {status}")
    assert len(again.stdout.splitlines()) == 1


def test_it_prints_envelopes_from_the_start_or_after_a_position(shell: Shell) -> None:
    shell.says("publish", "a", "--create", "--type", "log", "--data", '{"message": "hi"}')
    end(shell, "a", "succeeded")
    events = shell.lines("tail", "a", "--from", "start")
    assert [(event["n"], event["type"]) for event in events] == [(1, "status"), (2, "log"), (3, "end")]
    kept = shell.lines("show", "a")[0]
    assert shell.lines("tail", "a", "--from", kept["position"]) == []
    snapshot, last = shell.lines("tail", "a")
    assert (snapshot["type"], snapshot["data"]["id"], last) == ("snapshot", "a", events[-1])
    reset, *after = shell.lines("tail", "a", "--from", "99999999999999-0")
    assert (reset["reset"], after) == ("lost", events)
    assert "not a valid position" in shell.fails(2, "tail", "a", "--from", "yesterday")


def test_it_begins_at_any_time_that_the_log_reaches_back_to(shell: Shell) -> None:
    shell.says("publish", "a", "--create", "--type", "log", "--data", '{"message": "hi"}')
    written = time.time()
    wait_until(lambda: time.time() > written + 0.01, "the next event has a later time")
    end(shell, "a", "succeeded")
    first, second, _ = (event["time"] for event in shell.lines("tail", "a", "--from", "start"))
    assert [event["n"] for event in shell.lines("tail", "a", "--from", f"{first - 1}-0")] == [1, 2, 3]
    assert [event["n"] for event in shell.lines("tail", "a", "--from", f"{second + 1}-0")] == [3]
    assert "lost" not in shell.says("tail", "a", "--from", f"{first - 1}-0")


@pytest.mark.parametrize("late_s", [0, 0.0004, 0.0008, 0.0016])
def test_ctrl_c_ends_it_quietly(shell: Shell, late_s: float) -> None:
    shell.says("publish", "a", "--create")
    with shell.open("tail", "a") as tail:
        assert tail.stdout
        assert tail.stderr
        tail.stdout.readline()
        time.sleep(late_s)  # it may be calling Redis at that moment
        tail.send_signal(signal.SIGINT)
        assert tail.wait(120) == 130
        assert tail.stderr.read() == b""


def test_a_reader_that_goes_away_ends_it_though_nothing_happens(shell: Shell) -> None:
    shell.says("publish", "a", "--create")
    with shell.open_interpreter("tail", "a") as tail:
        assert tail.stdout
        tail.stdout.readline()
        tail.stdout.close()
        assert tail.wait(120) == 141


def test_it_waits_for_a_redis_that_went_away(shell: Shell, tmp_path: Path) -> None:
    with RealRedis(tmp_path / "r", keep=True) as redis:
        shell.env["PROGRESS_REDIS_URL"] = redis.url
        shell.says("publish", "a", "--create")
        with shell.open("tail", "a") as tail:
            assert tail.stdout
            assert tail.stderr
            tail.stdout.readline()
            redis.stop()
            assert b"retrying" in tail.stderr.readline()
            redis.start()
            end(shell, "a", "succeeded")
            assert tail.wait(120) == 0


def test_an_operation_that_is_deleted_meanwhile_is_gone(shell: Shell, redis_url: str) -> None:
    import redis

    shell.says("publish", "a", "--create")
    with shell.open("tail", "a") as tail:
        assert tail.stdout
        tail.stdout.readline()
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
        assert tail.wait(120) == 4


def test_on_a_terminal_it_draws_a_bar_below_the_log(shell: Shell) -> None:
    shell.says("publish", "a", "--create", "--title", "Bar [x]", "--type", "progress", "--data", '{"percent": 40}')
    ours, theirs = pty.openpty()
    env = shell.env | {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    shown = b""
    with Forked(["tail", "a"], theirs, env, stdin=theirs) as tail:
        os.close(theirs)

        def read(text: bytes) -> bool:
            nonlocal shown
            try:
                shown += os.read(ours, 65_536)
            except OSError:  # the other side has closed
                return True
            return text in shown

        wait_until(lambda: read(b"40.0 %"), "the bar is drawn")
        shell.says("publish", "a", "--type", "log", "--data", '{"message": "half way", "level": "warning"}')
        wait_until(lambda: read(b"warning: half way"), "the line is shown")
        end(shell, "a", "succeeded")
        wait_until(lambda: read(b"never shown"), "it ends")
        assert tail.wait(120) == 0
    os.close(ours)
    assert b"Bar [x]" in shown
