"""A redis-server and an API server as users run them, shared by all tests of this folder that do not stop them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browser import launched, visited
from tests.e2e.harness import Api, ForeignWorker
from tests.servers import ApiReplica, RealRedis, free_port

# Small limits, so that a few hundred events reach all of them.
LIMITS: dict[str, Any] = {
    "history_length": 100,
    "ring_length": 16,
    "page_length": 10,
    "sweep_interval_s": 0.5,
    "ping_s": 1,
    "retry_ms": 100,
    "drain_s": 1,
}


@pytest.fixture(scope="package")
def e2e_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with RealRedis(tmp_path_factory.mktemp("e2e-redis")) as server:
        yield server


@pytest.fixture
def old(tmp_path: Path) -> Iterator[RealRedis]:
    """A master."""
    with RealRedis(tmp_path / "old", port=free_port()) as server:
        yield server


@pytest.fixture
def new(tmp_path: Path, old: RealRedis) -> Iterator[RealRedis]:
    """Its replica, to be promoted."""
    with RealRedis(tmp_path / "new", port=free_port(), options=("--replicaof", "127.0.0.1", str(port(old)))) as server:
        yield server


def port(server: RealRedis) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture(scope="package")
def replica(e2e_redis: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    """A replica that must log no errors during all tests."""
    log = tmp_path_factory.mktemp("e2e-api") / "api.log"
    with ApiReplica(e2e_redis.url, log, **LIMITS) as server:
        yield server
        assert server.popen is not None
        assert server.popen.poll() is None, server.output()
        for complaint in ("Traceback", "ERROR", "died", "task failed"):
            assert complaint not in server.output(), server.output()[-4000:]


@pytest.fixture
def api(replica: ApiReplica) -> Iterator[Api]:
    with Api(replica.url) as caller:
        yield caller


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def page(api: Api, browser: Browser) -> Iterator[Page]:
    with visited(browser, api.url) as page:
        yield page


@pytest.fixture
def foreign(e2e_redis: RealRedis) -> Iterator[ForeignWorker]:
    worker = ForeignWorker(e2e_redis.url)
    yield worker
    worker.redis.close()


StartReplica = Callable[..., ApiReplica]


@pytest.fixture
def start_replica(tmp_path: Path) -> Iterator[StartReplica]:
    """Starts replicas that a test may stop, kill and restart."""
    started: list[ApiReplica] = []

    def start(redis_url: str, **settings: Any) -> ApiReplica:
        replica = ApiReplica(redis_url, tmp_path / f"api-{len(started)}.log", **(LIMITS | settings))
        started.append(replica)
        return replica.__enter__()

    yield start
    for replica in started:
        replica.__exit__(None, None, None)
