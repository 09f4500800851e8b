"""A server that is stopped at a bad moment exits soon, without errors in its log."""

import signal
import socket
from pathlib import Path

import pytest

from tests.api.raw import request
from tests.e2e.harness import OPS, Api
from tests.servers import DEADLINE_S, START_S, ApiReplica, RealRedis, wait_until

UPLOAD = f"POST {OPS}/a/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode()
FOREVER_S = 3600
"""More than any test takes: what ends does not end by this timeout."""


def ended_quietly(replica: ApiReplica) -> None:
    wait_until(lambda: replica.popen is not None and replica.popen.poll() is not None, "it ends")
    assert replica.stop() == 0, replica.output()
    for complaint in ("Traceback", "Cancelled", "ERROR: uvicorn.error: Exception"):
        assert complaint not in replica.output(), replica.output()[-4000:]


@pytest.mark.parametrize("times", [1, 2])
def test_a_call_whose_body_does_not_come_is_told_so(tmp_path: Path, times: int) -> None:
    patient = {"request_timeout_s": FOREVER_S, "drain_s": 1}
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log", **patient) as replica:
        with Api(replica.await_ready().url) as api:
            api.create(id="a")
        with socket.create_connection(("127.0.0.1", replica.port), timeout=DEADLINE_S) as upload:
            upload.sendall(UPLOAD)
            with Api(replica.url) as api:
                api.show("a")  # so that the one before has come
            for _ in range(times):
                replica.send(signal.SIGINT)
                wait_until(lambda: "Shutting down" in replica.output() or "Finished" in replica.output(), "it is told")
            answer = b"".join(iter(lambda: upload.recv(4096), b""))
        ended_quietly(replica)
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"type":"draining"' in answer


def test_an_event_source_that_has_no_answer_yet_is_told_to_come_back(tmp_path: Path) -> None:
    patient = {"redis_timeout_s": FOREVER_S, "drain_s": 1}
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log", **patient) as replica:
        with Api(replica.await_ready().url) as api:
            api.create(id="a")
            with socket.create_connection(("127.0.0.1", replica.port), timeout=DEADLINE_S) as source:
                redis.send(signal.SIGSTOP)
                try:
                    source.sendall(request(f"{OPS}/a/stream", "Accept: text/event-stream"))
                    assert api.http.get("/livez").status_code == 200  # so that the one before has come
                    replica.send(signal.SIGINT)
                    answer = b"".join(iter(lambda: source.recv(4096), b""))
                finally:
                    redis.send(signal.SIGCONT)
        ended_quietly(replica)
    assert answer.startswith(b"HTTP/1.1 200 "), "for good it gives up on anything else"
    assert b'event: reconnect\ndata: {"reason":"draining"}' in answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_can_not_start_for_want_of_redis_can_be_stopped(tmp_path: Path, number: int) -> None:
    with RealRedis(tmp_path / "redis") as redis:
        redis.send(signal.SIGSTOP)
        replica = ApiReplica(redis.url, tmp_path / "log", redis_timeout_s=1).start()
        try:
            wait_until(lambda: "Waiting for application startup" in replica.output(), "it starts", START_S)
            replica.send(number)
            ended_quietly(replica)
        finally:
            replica.stop(signal.SIGKILL)
            redis.send(signal.SIGCONT)
