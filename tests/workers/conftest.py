import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from progress_workers import AsyncOperation, Operation
from progress_workers.testing import Recording, recording
from progress_workers.transport import registry
from tests.servers import ApiReplica, RealRedis, free_port
from tests.workers.harness import Broker


@pytest.fixture(scope="module")
def server(redis_server: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    """A server for workers without Redis, only if a test needs it. It leaves leases and retention to the tests, whose
    Redis it shares."""
    never_s = 3600.0
    log = tmp_path_factory.mktemp("server") / "log"
    with ApiReplica(redis_server.url, log, lease_check_interval_s=never_s, sweep_interval_s=never_s) as it:
        yield it


OVER_BOTH = {
    f"test_{name}.py"
    for name in ("operations", "cancelling", "children", "counting", "failing_over", "leases", "processes")
}
"""The files whose tests run over Redis and over HTTP, but for those that are `over_redis`."""
ON_A_CLUSTER = {"test_operations.py", "test_cancelling.py"}
"""The files whose tests also run over a Cluster of three masters."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "carrier" in metafunc.fixturenames and metafunc.definition.path.name in OVER_BOTH:
        only_redis = metafunc.definition.get_closest_marker("over_redis")
        carriers = ["redis"] if only_redis else ["redis", "http"]
        clusters = ["cluster"] if metafunc.definition.path.name in ON_A_CLUSTER else []
        metafunc.parametrize("carrier", carriers + clusters, indirect=True)


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> str:
    """What carries reports: Redis itself, HTTP to a server, or a Cluster."""
    name: str = getattr(request, "param", "redis")
    return name


@pytest.fixture
def storage(carrier: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty Redis, in which reports are stored."""
    url: str = request.getfixturevalue("cluster_url" if carrier == "cluster" else "redis_url")
    return url


@pytest.fixture
def address(carrier: str, storage: str, request: pytest.FixtureRequest) -> str:
    """What workers connect to: the URL of Redis, or of a server."""
    if carrier != "http":
        return storage
    server: ApiReplica = request.getfixturevalue("server")
    return server.url


@pytest.fixture
def broker(storage: str, address: str) -> Iterator[Broker]:
    broker = Broker(storage, address)
    yield broker
    # What the test has left running would create its operation again, in the empty Redis of the next one.
    for link in list(registry._links.values()):
        for reporter in list(link._known):
            reporter.discard(told=False)
    broker.redis.close()


@pytest.fixture
def kept_redis(tmp_path: Path) -> Iterator[RealRedis]:
    """A server that persists every write, so that killing it loses nothing."""
    with RealRedis(tmp_path / "kept", keep=True, port=free_port(), options=("--appendfsync", "always")) as server:
        yield server


class Lasting(ApiReplica):
    """A server before a Redis that lasts."""

    def start(self) -> Self:
        return super().start().await_ready()


@pytest.fixture
def away(carrier: str, kept_redis: RealRedis, tmp_path: Path) -> Iterator[RealRedis | Lasting]:
    """What workers report to, which a test stops and starts: a Redis, or a server before one."""
    if carrier == "redis":
        yield kept_redis
    else:
        with Lasting(kept_redis.url, tmp_path / "server.log") as server:
            yield server


@pytest.fixture
def recorded() -> Iterator[Recording]:
    with recording() as recorded:
        yield recorded


@pytest.fixture
def op(recorded: Recording) -> Iterator[Operation]:
    with Operation.start("import") as op:
        yield op


Body = Callable[[Any], None]
Run = Callable[..., None]


def _sync(body: Body, *args: Any, how: str = "start", **options: Any) -> None:
    with getattr(Operation, how)(*args, **options) as op:
        body(op)


def _asynchronous(body: Body, *args: Any, how: str = "start", **options: Any) -> None:
    async def run() -> None:
        async with getattr(AsyncOperation, how)(*args, **options) as op:
            body(op)

    asyncio.run(run())


@pytest.fixture(params=[_sync, _asynchronous], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a body in the block of `Operation` or `AsyncOperation`: both must behave the same."""
    found: Run = request.param
    return found
