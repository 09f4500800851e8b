"""The log of a server, for people and for machines."""

import json
import logging
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import datetime
from typing import Any

import pytest

from progress_cli.logging import JsonLines
from tests.cli.conftest import Shell, ready
from tests.servers import wait_until


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_line_for_machines() -> None:
    record = logging.LogRecord("progress_broker.hub", logging.INFO, "", 0, "stream %d\nends", (7,), None)
    record.stream, record.reason = 7, "stuck"
    text = JsonLines().format(record)
    line = json.loads(text)
    assert "\n" not in text
    assert line.pop("time").endswith("+00:00")
    assert line.pop("process") > 0
    assert line == {
        "level": "info",
        "logger": "progress_broker.hub",
        "message": "stream 7\nends",
        "stream": 7,
        "reason": "stuck",
    }


def test_an_error_and_what_is_no_json_are_told_too() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 0, "it failed", (), sys.exc_info())
    record.where = object()
    line = json.loads(JsonLines().format(record))
    assert "ValueError: broken" in line["error"]
    assert line["where"].startswith("<object")


def test_what_json_has_no_word_for_is_told_in_text() -> None:
    itself: dict[str, Any] = {}
    itself["me"] = itself
    for message, field, said in (
        ("half \udcff", 7, 7),
        ("many", 2**70, 2**70),
        ("itself", itself, str(itself)),
        ("half", {"in": "\udcff"}, "{'in': '\\udcff'}"),
    ):
        record = logging.LogRecord("a", logging.ERROR, "", 0, message, (), None)
        record.field = field
        line = json.loads(JsonLines().format(record).encode())
        assert line["message"] == message.encode("utf-8", "backslashreplace").decode()
        assert (line["field"], line["level"]) == (said, "error")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_that_logs_for_machines(shell: Shell, processes: str) -> None:
    options = ("--port", "0", "--log-format", "json", "--log-level", "debug", "--processes", processes)
    with shell.process("serve", *options) as server:
        url = ready(server)
        shell.says("publish", "a", "--create")
        request = urllib.request.Request(
            f"{url}/v1/operations/a/stream?ticket=s3cret", headers={"X-Request-Id": "r-1", "Accept": "*/*"}
        )
        with urllib.request.urlopen(request, timeout=60) as stream:
            connection = stream.headers["Progress-Connection"]
            assert stream.headers["X-Request-Id"] == "r-1"
            stream.readline()
            wait_until(lambda: "opened, from snapshot" in server.output(), "the stream's opening is told")
        shell.says("publish", "a", "--type", "log", "--data", '{"message": "m"}')
        wait_until(lambda: "closed after" in server.output(), "and its end")
        assert server.stop(signal.SIGTERM) == 0
    told = lines(server.output())
    assert {"uvicorn.error", "progress_server.middleware.access_log"} <= {line["logger"] for line in told}
    opened, closed = ([line for line in told if word in line["message"]] for word in ("opened, from", "closed after"))
    assert (opened[0]["connection"], opened[0]["operation"], opened[0]["from"]) == (connection, "a", "snapshot")
    assert opened[0]["request"] == "r-1"
    assert (closed[0]["connection"], closed[0]["reason"]) == (connection, "client")
    [asked] = [
        line for line in told if line["logger"] == "progress_server.middleware.access_log" and line.get("connection")
    ]
    assert asked["connection"] == connection
    assert (asked["method"], asked["route"], asked["status"]) == ("GET", "/v1/operations/{id}/stream", 200)
    assert (asked["path"], asked["request"]) == ("/v1/operations/a/stream", "r-1")
    assert asked["ms"] >= 0
    assert closed[0]["lasted_s"] >= 0
    assert closed[0]["process"] == opened[0]["process"]
    assert "s3cret" not in server.output()
    assert len(told) == len(server.output().splitlines()), "every line is one for machines"


@pytest.mark.parametrize("processes", ["1", "2"])
def test_every_line_for_machines_is_one_from_the_first_on(lonely: Shell, processes: str) -> None:
    with lonely.process("serve", "--port", "0", "--log-format", "json", "--processes", processes) as server:
        ready(server)
        assert server.stop(signal.SIGTERM) == 0
    told = [json.loads(line) for line in server.output().splitlines()]
    assert told[0]["message"].startswith("Redis: ")
    assert {line["level"] for line in told} == {"info"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PORT": "many"}, "invalid settings: PROGRESS_PORT"),
        ({"AUTH": "jwt"}, "PROGRESS_AUTH=jwt needs"),
        ({"REDIS_URL": "redis://:s3cret/@127.0.0.1:1/0"}, "PROGRESS_REDIS_URL is invalid"),
    ],
)
def test_what_keeps_a_server_from_starting_is_told_to_machines_too(
    lonely: Shell, settings: dict[str, str], said: str
) -> None:
    lonely.env |= {f"PROGRESS_{name}": value for name, value in ({"PORT": "0"} | settings).items()}
    for words in (("serve", "--log-format", "json"), ("serve",)):
        lonely.env |= {"PROGRESS_LOG_FORMAT": "json"} if len(words) == 1 else {}
        done = lonely.run(*words)
        assert (done.returncode, done.stdout) == (5, "")
        [line] = map(json.loads, done.stderr.splitlines())
        assert line["level"] == "error"
        assert line["message"].startswith(said)
        assert "s3cret" not in done.stderr


def test_what_nobody_expected_is_told_to_machines_too() -> None:
    setup = "import warnings; from progress_cli.logging import log_for_machines; log_for_machines()"
    dying = f"{setup}; warnings.warn('w'); raise KeyError('k')"
    done = subprocess.run([sys.executable, "-c", dying], capture_output=True, timeout=120, check=False)
    warned, died = map(json.loads, done.stderr.splitlines())
    assert (warned["level"], died["level"]) == ("warning", "critical")
    assert "KeyError: 'k'" in died["error"]
    assert done.returncode == 1


def test_what_breaks_where_nobody_can_catch_it_is_told_to_machines_too() -> None:
    breaking = """
import threading
from progress_cli.logging import log_for_machines
class Breaking:
    def __del__(self): raise KeyError("k")
def broken(): raise KeyError("k")
log_for_machines()
Breaking()
threading.Thread(target=broken).start()
"""
    done = subprocess.run([sys.executable, "-c", breaking], capture_output=True, timeout=120, check=False)
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["level"], "KeyError: 'k'" in line["error"]) for line in told] == [("error", True)] * 2


def test_a_server_that_logs_for_people(shell: Shell) -> None:
    with shell.process("serve", "--port", "0") as server:
        url = ready(server)
        shell.says("publish", "a", "--create")
        with urllib.request.urlopen(f"{url}/v1/operations/a/stream", timeout=60) as stream:
            stream.readline()
        assert server.stop(signal.SIGTERM) == 0
    assert lines(server.output()) == []
    logged = [line for line in server.output().splitlines() if " INFO: uvicorn.error: " in line]
    assert logged
    assert all(datetime.fromisoformat(line.partition(" ")[0]).tzinfo is not None for line in logged)
    assert "closed after" not in server.output(), "streams come and go without a word"
