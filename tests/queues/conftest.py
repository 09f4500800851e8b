import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.queues.queues import QUEUES
from tests.servers import ApiReplica, RealRedis, free_port
from tests.workers.harness import Broker


@pytest.fixture(scope="session")
def queue_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis for both the queues and the progress broker; it is not flushed while workers run."""
    with RealRedis(tmp_path_factory.mktemp("queues"), port=free_port()) as server:
        os.environ["QUEUE_REDIS_URL"] = server.url  # the apps are modules and read it at import
        yield server.url
        del os.environ["QUEUE_REDIS_URL"]


@pytest.fixture(scope="session")
def queue_server(queue_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    """A server for the queues whose reports go over HTTP. It leaves leases and retention alone."""
    never_s = 3600.0
    log = tmp_path_factory.mktemp("server") / "log"
    with ApiReplica(queue_url, log, lease_check_interval_s=never_s, sweep_interval_s=never_s) as server:
        yield server


@pytest.fixture(scope="session")
def queues(
    queue_url: str, queue_server: ApiReplica, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Each queue with its worker. All start together, because starting takes most of the time."""
    logs = tmp_path_factory.mktemp("workers")
    opened = {name: make(queue_url, queue_server.url, logs / f"{name}.log") for name, make in QUEUES.items()}
    try:
        for each in opened.values():
            with pytest.MonkeyPatch.context() as patch:
                each.report_to(each.address, patch)
                each.start()
        yield opened
    finally:
        for each in opened.values():
            each.close()


@pytest.fixture(scope="package")
def attended(queues: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The queues while tests of them run. Afterwards their workers are stopped: idle, they still ask for tasks."""
    yield queues
    for each in queues.values():
        each.stop()


@pytest.fixture(params=list(QUEUES))
def queue(
    request: pytest.FixtureRequest, attended: dict[str, Any], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A queue with a running worker."""
    found = attended[request.param]
    found.report_to(found.address, monkeypatch)
    found.start()
    return found


@pytest.fixture
def broker(queue_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setenv("PROGRESS_REDIS_URL", queue_url)
    broker = Broker(queue_url)
    yield broker
    broker.redis.close()
