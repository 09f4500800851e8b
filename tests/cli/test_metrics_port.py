"""The port on which a server adds the metrics of its processes up."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import children
from tests.servers import START_S, ApiReplica, RealRedis, free_port, wait_until

REQUESTS = 40


def counted(port: int) -> float:
    """Return how many requests for /livez all processes have answered."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert not any("pid" in sample.labels for sample in samples)
    return sum(
        sample.value
        for sample in samples
        if sample.name == "progress_broker_http_requests_total" and sample.labels["route"] == "/livez"
    )


@pytest.fixture(params=[1, 3], ids=["one process", "three processes"])
def replica(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ApiReplica, int, int]]:
    port = free_port()
    settings = {"processes": request.param, "metrics_port": port}
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log", **settings) as replica:
        yield replica, port, request.param


def test_all_processes_are_added_up_and_no_counter_falls(replica: tuple[ApiReplica, int, int]) -> None:
    server, port, processes = replica
    wait_until(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200, "it is ready")
    before = counted(port)
    for _ in range(REQUESTS):
        assert httpx.get(f"{server.url}/livez").status_code == 200
    assert counted(port) == before + REQUESTS
    assert httpx.get(f"http://127.0.0.1:{port}/livez").text == "alive\n"
    assert httpx.get(f"http://127.0.0.1:{port}/v1/operations").status_code == 404
    assert httpx.post(f"http://127.0.0.1:{port}/metrics").status_code == 405
    if processes == 1:
        return
    pids = children(server.pid)
    os.kill(pids[0], signal.SIGKILL)
    seen = [counted(port)]

    def replaced() -> bool:
        seen.append(counted(port))
        return len(children(server.pid)) == processes and pids[0] not in children(server.pid)

    wait_until(replaced, "another process takes its place")
    assert min(seen) >= before + REQUESTS
    assert seen == sorted(seen)


def test_a_port_that_is_taken_is_an_error(replica: tuple[ApiReplica, int, int], tmp_path: Path) -> None:
    server, port, processes = replica
    url = server.env["PROGRESS_REDIS_URL"] if server.env else ""
    other = ApiReplica(url, tmp_path / "other", processes=processes, metrics_port=port).start()
    assert other.popen is not None
    assert other.popen.wait(START_S) == 5
    assert f"can't listen on 127.0.0.1:{port} for metrics" in other.output()
