import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest

from progress_workers import AsyncOperation, Operation
from progress_workers.testing import Recording, recording
from progress_workers.transport import registry
from tests.conftest import url_of
from tests.servers import ApiReplica, RealRedis, free_port
from tests.topologies.kinds import RUN
from tests.workers.harness import Broker


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ApiReplica]]:
    """Returns a server of a Redis, for workers without Redis. It leaves leases and retention to the tests."""
    never_s = 3600.0

    @cache
    def server(redis_url: str) -> ApiReplica:
        log = tmp_path_factory.mktemp("server") / "log"
        never = {"lease_check_interval_s": never_s, "sweep_interval_s": never_s}
        return stack.enter_context(ApiReplica(redis_url, log, **never))

    with ExitStack() as stack:
        yield server


OVER_BOTH = {
    f"test_{name}.py"
    for name in ("operations", "cancelling", "children", "counting", "failing_over", "leases", "processes")
}
"""The files whose tests run over Redis and over HTTP, but for those that are `over_redis`."""
ON_A_CLUSTER = {"test_operations.py", "test_cancelling.py"}
"""The files whose tests also run over a Cluster of three masters."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "carrier" not in metafunc.fixturenames:
        return
    marked, file = metafunc.definition.get_closest_marker, metafunc.definition.path.name
    carriers = ["redis", "http"] if file in OVER_BOTH and not marked("over_redis") else ["redis"]
    if "topology" not in metafunc.fixturenames or marked("one_server"):
        if file in OVER_BOTH:
            metafunc.parametrize("carrier", carriers, indirect=True)
        return
    ways = [(kind, carrier) for kind in RUN for carrier in carriers]
    ways += [("cluster", "redis")] if len(RUN) == 1 and file in ON_A_CLUSTER else []
    if len(ways) > 1:
        ids = [carrier if kind == "redis" else f"{kind}-{carrier}" for kind, carrier in ways]
        metafunc.parametrize(("topology", "carrier"), ways, ids=ids, indirect=True)


@pytest.fixture
def topology(request: pytest.FixtureRequest) -> str:
    """The kind of Redis in which reports are stored."""
    kind: str = getattr(request, "param", "redis")
    return kind


@pytest.fixture
def storage(topology: str, request: pytest.FixtureRequest) -> str:
    """The address of an empty Redis in which reports are stored."""
    return url_of(topology, request)


@pytest.fixture
def carrier(request: pytest.FixtureRequest) -> str:
    """What carries reports: Redis itself, HTTP to a server, or a Cluster."""
    name: str = getattr(request, "param", "redis")
    return name


@pytest.fixture
def server(storage: str, server_of: Callable[[str], ApiReplica]) -> ApiReplica:
    return server_of(storage)


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
