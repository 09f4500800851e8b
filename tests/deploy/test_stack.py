"""The services of `compose.yaml`, run as they are written, do together what they are for."""

import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import sse
from tests.deploy import files
from tests.deploy.stack import REPLICAS, STOP_SIGNALS, Curl, Stack
from tests.servers import DEADLINE_S, wait_until

NAMES_VALID_S = 2  # as deploy/nginx.conf says of its resolver


def create(stack: Stack, operation: str) -> None:
    answer = httpx.post(f"{stack.url}/v1/operations", json={"id": operation, "kind": "import"}, timeout=DEADLINE_S)
    assert answer.status_code == 201, answer.text


def publish(stack: Stack, operation: str, type: str, data: dict[str, Any]) -> dict[str, Any]:
    url = f"{stack.url}/v1/operations/{operation}/events"
    answer = httpx.post(url, json={"type": type, "data": data}, timeout=DEADLINE_S)
    assert answer.is_success, answer.text
    stored: dict[str, Any] = answer.json()
    return stored


def test_health_checks_tell_the_truth(stack: Stack) -> None:
    replica = stack.replicas[0]
    with stack.running():
        assert stack.health("redis", stack.redis).stdout == "PONG\n"
        assert stack.health("api", replica).returncode == 0
        assert stack.health("nginx", stack.nginx).returncode == 0
        stack.redis.stop()
        wait_until(lambda: stack.health("api", replica).returncode != 0, "a replica without Redis is unhealthy")
        replica.stop(signal.SIGKILL)
        for name, container in (("redis", stack.redis), ("api", replica)):
            assert stack.health(name, container).returncode != 0
        stack.replicas[1].stop(signal.SIGKILL)
        assert stack.health("nginx", stack.nginx).returncode != 0


def test_a_packed_stream_passes_as_it_is(shared: Stack) -> None:
    create(shared, "import-packed")
    with Curl(shared.folder, f"{shared.url}/v1/operations/import-packed/stream", "--compressed", "-i") as curl:
        curl.await_text("event: snapshot")
        assert "content-encoding: gzip" in curl.output().lower()
        for n in range(3):
            publish(shared, "import-packed", "log", {"message": f"line {n}" + " and so on" * 100 * n})
            curl.await_text(f"line {n}")
        publish(shared, "import-packed", "end", {"status": "succeeded"})
        assert "event: end" in curl.await_end()
        assert curl.popen is not None
        assert curl.popen.returncode == 0


def test_a_stream_goes_on_at_the_other_replica_and_no_call_fails(stack: Stack) -> None:
    """The replica that serves it is stopped by SIGTERM; its client comes back with its Last-Event-ID."""
    first, second = REPLICAS
    leaving = stack.replicas[0]
    # One is known at first, so that we know who serves the stream.
    with (
        stack.running(known=(first,)),
        httpx.Client(base_url=f"{stack.url}/v1/operations", timeout=DEADLINE_S) as client,
    ):
        create(stack, "import-1")
        url = f"{stack.url}/v1/operations/import-1/stream"
        with Curl(stack.folder, url) as curl:
            curl.await_text("event: snapshot")
            publish(stack, "import-1", "log", {"level": "info", "message": "one"})
            curl.await_text('"message":"one"')  # while the stream is open: nothing on its way buffers
            stack.names.addresses = [second, first]  # the one that stops is still known for a while
            wait_until(lambda: second in served_by(stack), "nginx asks for the replicas' addresses again")
            time.sleep(NAMES_VALID_S + 1)  # each of its processes does so for itself, in whole seconds
            leaving.send(signal.SIGTERM)
            assert leaving.popen is not None
            while leaving.popen.poll() is None:
                assert client.get("/import-1").status_code == 200
            assert leaving.popen.returncode == 0
            seen = sse.published(curl.await_end().encode())
            assert curl.popen is not None
            assert curl.popen.returncode == 0  # ended, not torn
        assert [message.type for message in seen] == ["snapshot", "log", "reconnect"]
        position = seen[1].id
        assert seen[2].json["reason"] == "draining"
        for _ in range(20):
            assert client.get("/import-1").status_code == 200

        def published() -> bool:
            try:
                publish(stack, "import-1", "log", {"level": "info", "message": "two"})
            except AssertionError:  # 502: one of nginx' processes still asks the one that has stopped
                return False
            return True

        wait_until(published, "nginx knows of the other replica")
        with Curl(stack.folder, url, "-H", f"Last-Event-ID: {position}") as curl:
            curl.await_text('"message":"two"')
            publish(stack, "import-1", "end", {"status": "succeeded", "result": 7})
            seen = sse.published(curl.await_end().encode())
        assert [message.type for message in seen] == ["log", "end"]  # all of what came since, once
        assert seen[0].json["data"]["message"] == "two"
        assert [message.json["n"] for message in seen] == [seen[0].json["n"], seen[0].json["n"] + 1]

        ended = httpx.get(url, headers={"Last-Event-ID": seen[1].id}, timeout=DEADLINE_S)
        assert ended.status_code == 204


def served_by(stack: Stack) -> str:
    """Make a call; return what nginx wrote about it in its log."""
    with urllib.request.urlopen(f"{stack.url}/livez") as answer:
        answer.read()
    return stack.nginx.output().splitlines()[-1]


def test_no_call_fails_while_a_replica_is_gone_and_no_log_tells_tickets(stack: Stack) -> None:
    with stack.running():
        stack.replicas[0].stop(signal.SIGKILL)
        for number in range(20):
            create(stack, f"import-{number}")
            assert httpx.get(f"{stack.url}/v1/operations/import-{number}", timeout=DEADLINE_S).status_code == 200
        tried = [line for line in stack.nginx.output().splitlines() if f"{REPLICAS[0]}:" in line and ", " in line]
        assert tried != []  # the dead one was tried, and the other one answered

        url = f"{stack.url}/v1/operations/import-1?ticket=t1cket"
        assert httpx.get(url, timeout=DEADLINE_S).status_code == 200
        stack.replicas[1].stop(signal.SIGKILL)
        assert httpx.get(url, timeout=DEADLINE_S).status_code == 502  # which nginx has something to say about
        logs = [process.output() for process in (stack.nginx, *stack.replicas)]
        assert "/v1/operations/import-1" in logs[0]
        assert not any("t1cket" in log for log in logs)


def test_a_body_is_passed_on_as_it_comes(shared: Stack) -> None:
    """Each line of NDJSON is an event at once, though the request has no end yet."""
    create(shared, "import-lines")
    with Curl(shared.folder, f"{shared.url}/v1/operations/import-lines/stream") as curl:
        curl.await_text("event: snapshot")

        def lines() -> Iterator[bytes]:
            for message in ("one", "two"):
                yield b'{"type": "log", "data": {"level":"info","message":"%b"}}\n' % message.encode()
                curl.await_text(f'"message":"{message}"')

        answer = httpx.post(
            f"{shared.url}/v1/operations/import-lines/events",
            content=lines(),
            headers={"Content-Type": "application/x-ndjson"},
            timeout=DEADLINE_S,
        )
        assert answer.json()["accepted"] == 2


def test_streams_tell_nginx_not_to_buffer_them(shared: Stack) -> None:
    create(shared, "import-unbuffered")
    url = f"{shared.replicas[0].url}/v1/operations/import-unbuffered/stream"  # nginx keeps the header to itself
    with httpx.stream("GET", url, timeout=DEADLINE_S) as answer:
        assert answer.headers["x-accel-buffering"] == "no"


def first_of_the_demo(stack: Stack) -> str:
    """Wait until the demo is at work, and return the id of an operation of its."""
    seen: list[dict[str, Any]] = []

    def begun() -> bool:
        seen.extend(
            httpx.get(f"{stack.url}/v1/operations", params={"tag": "demo"}, timeout=DEADLINE_S).json()["operations"]
        )
        return seen != []

    wait_until(begun, f"the demo begins: {stack.worker.output()[-2000:]}")
    return str(seen[0]["id"])


def test_the_demo_workers_are_at_work(shared: Stack) -> None:
    with Curl(shared.folder, f"{shared.url}/v1/operations/{first_of_the_demo(shared)}/stream?from=start") as curl:
        curl.await_text("event: progress")


def test_the_dashboard_is_served(shared: Stack) -> None:
    page = httpx.get(f"{shared.url}/", timeout=DEADLINE_S)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert httpx.get(f"{shared.url}/web/dashboard/dashboard.js", timeout=DEADLINE_S).status_code == 200


def test_services_stop_within_their_grace(stack: Stack) -> None:
    """With a stream open; an engine kills what takes longer."""
    with stack.running(worker=True):
        first_of_the_demo(stack)
        create(stack, "import-1")
        path = "/v1/operations/import-1/stream"
        first, second = stack.replicas
        for name, process, watched in (
            ("worker", stack.worker, stack.url),
            ("nginx", stack.nginx, stack.url),
            ("api", first, first.url),
            ("redis", stack.redis, second.url),
        ):
            grace_s = files.seconds(stack.services[name].get("stop_grace_period", "10s"))  # engines' own default
            with Curl(stack.folder, f"{watched}{path}") as curl:
                curl.await_text("event: snapshot")
                process.send(STOP_SIGNALS.get(name, signal.SIGTERM))
                assert process.popen is not None
                assert process.popen.wait(grace_s) == 0, name


@pytest.mark.parametrize("program", ["nginx", "redis-server", "curl", "wget"])
def test_a_missing_program_is_named(program: str, folder: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))

    def start() -> None:
        Curl(folder, "http://127.0.0.1") if program == "curl" else Stack(folder / "stack", site)

    with pytest.raises(RuntimeError, match="is missing: `make setup` installs"):
        start()


def test_metrics_are_told_by_the_replicas_and_not_to_strangers(shared: Stack) -> None:
    assert httpx.get(f"{shared.url}/metrics", timeout=DEADLINE_S).status_code == 404
    for replica in shared.replicas:
        assert "progress_broker_build_info" in httpx.get(f"{replica.url}/metrics", timeout=DEADLINE_S).text
