"""Fixtures all suites share: a real redis-server, and a store over each kind of Redis."""

import gc
import inspect
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Hashable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import fakeredis
import fakeredis.aioredis
import httpx
import hypothesis
import pytest
import redis.utils

from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.schema import ensure_schema
from tests.keyspace import unbounded
from tests.longest_first import longest_first
from tests.servers import DEADLINE_S, RealRedis
from tests.topologies.cluster import Cluster
from tests.topologies.kinds import ALL_BACKENDS, KINDS, RUN, Topologies
from tests.topologies.shards import Shards

gc.disable()  # until all is loaded and collected, which stays

# Machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


ON_THE_DOUBLE = {"test_store.py", "test_history.py", "test_hub.py", "test_import.py", "test_copy.py"}
"""The files whose tests always run on the double, too. The others do in `make topologies`."""
ON_A_CLUSTER = {
    *("test_store.py", "test_hub.py", "test_bundles.py", "test_listing.py", "test_children.py", "test_rollup.py"),
    "test_walk.py",
    "test_import.py",
    "test_copy.py",
}
"""The files whose tests always run on a Cluster of three masters, too."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.hook.pytest_deselected(items=[item for item in items if _is_left_out(item)])
    items[:] = longest_first([item for item in items if not _is_left_out(item)])


def _is_left_out(item: pytest.Item) -> bool:
    case = getattr(item, "callspec", None)
    backend = None if case is None else case.params.get("backend")
    if backend in KINDS and item.get_closest_marker("one_server"):
        return True
    if ALL_BACKENDS in os.environ:
        return False
    only = {"cluster": ON_A_CLUSTER, "fakeredis": ON_THE_DOUBLE}
    return backend in only and item.path.name not in only[backend]


CALLS = (
    *(httpx.request, httpx.stream, httpx.Client.__init__, httpx.AsyncClient.__init__),
    *(httpx.get, httpx.head, httpx.options, httpx.post, httpx.put, httpx.patch, httpx.delete),
)


def pytest_report_header() -> str:
    return f"streams are fuzzed with PROGRESS_STREAMS_SEED={os.environ['PROGRESS_STREAMS_SEED']}"


def pytest_configure() -> None:
    """Choose the seed of this run, before other processes of it start: all have to collect the same tests.

    Give requests the time a busy machine takes, unless a test says how long they may; and read the certificates that
    they trust once, not for each client, which would take most of the time of most requests.

    Have processes of tests end by a Ctrl-C also where shells started the tests to ignore it: in the background.
    """
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type] # httpcore looks for it in each request
    os.environ.setdefault("PROGRESS_STREAMS_SEED", str(random.randrange(1 << 32)))
    trusted = httpx.create_ssl_context()
    for call in CALLS:
        defaults = inspect.unwrap(call).__kwdefaults__
        defaults |= {"timeout": httpx.Timeout(DEADLINE_S), "verify": trusted}  # they are 5 s, and True
    redis.utils.get_lib_version = cache(redis.utils.get_lib_version)
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_finish() -> None:
    """Leave all that was loaded and collected out of later collections of garbage, which would look through it."""
    gc.collect()
    gc.freeze()
    gc.enable()


DEFAULTS: dict[str, Any] = {"sweep_interval_s": 0.2, "redis_timeout_s": 5}


def make_settings(**changes: Any) -> Settings:
    return read_settings(**(DEFAULTS | changes))


def read_settings(**given: Any) -> Settings:
    """Return settings. Reading them takes milliseconds, so those that are asked for again are the same."""
    if not all(isinstance(value, Hashable) for value in given.values()):
        return Settings(_env_file=None, **given)
    return _read(frozenset(given.items()), tuple(item for item in os.environ.items() if "PROGRESS" in item[0].upper()))


@cache
def _read(given: frozenset[tuple[str, Any]], _environment: tuple[tuple[str, str], ...]) -> Settings:
    return Settings(_env_file=None, **dict(given))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    """A redis-server for the whole run; tests that stop or break one start their own."""
    with RealRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RealRedis) -> str:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def settings() -> Settings:
    return make_settings()


@pytest.fixture(scope="session")
def second_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    """Another redis-server for the whole run, beside `redis_server`."""
    with RealRedis(tmp_path_factory.mktemp("second")) as server:
        yield server


@pytest.fixture
def second_url(second_server: RealRedis) -> str:
    with redis.Redis.from_url(second_server.url) as client:
        client.flushall()
    return second_server.url


@pytest.fixture
def shards(redis_url: str, second_url: str) -> tuple[str, str]:
    """The addresses of two empty servers."""
    return redis_url, second_url


@pytest.fixture(scope="session")
def topologies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topologies]:
    """Each kind of Redis beside a single server."""
    with Topologies(tmp_path_factory.mktemp("topologies")) as topologies:
        yield topologies


@pytest.fixture(scope="session")
def cluster_of_masters(topologies: Topologies) -> Cluster:
    cluster: Cluster = topologies.started("cluster")
    return cluster


@pytest.fixture
def cluster_url(topologies: Topologies) -> str:
    return topologies.emptied("cluster")


@pytest.fixture(params=["fakeredis", *(RUN if ALL_BACKENDS in os.environ else ["redis", "cluster"])])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def url_of(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the address of an empty Redis of a kind."""
    if kind in ("redis", "second"):
        single: str = request.getfixturevalue("redis_url" if kind == "redis" else "second_url")
        return single
    topologies: Topologies = request.getfixturevalue("topologies")
    return topologies.emptied(kind)


@pytest.fixture
async def store(backend: str, settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A store over the test double and over the real server; afterwards nothing without a bound may be left."""
    if backend in KINDS or backend == "redis":
        url = url_of(backend, request)
        settings = settings.model_copy(update={"redis_url": make_settings(redis_url=url).redis_url})
        opened = await Store.open(settings)
    elif backend == "shards":
        urls = request.getfixturevalue("shards")
        redises = [make_settings(redis_url=url).redis_url for url in urls]
        settings = settings.model_copy(update={"redis_url": redises[0]})
        connections: Connections = Shards.over(settings.model_copy(update={"redis_url": it}) for it in redises)
        opened = Store(connections, await ensure_schema(connections, settings), settings)
    else:
        server = fakeredis.FakeServer()
        clients = [fakeredis.aioredis.FakeRedis(server=server, protocol=2) for _ in range(2)]
        connections = Connections.of(*clients)
        opened = Store(connections, await ensure_schema(connections, settings), settings)
    async with opened:
        yield opened
        for master in await opened.connections.masters():
            assert await unbounded(opened.connections.commands, master, opened.keyspace, settings) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path
