"""Clients over both ways to the operations: a real server, and the Redis behind it."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from progress_broker.settings import Settings
from progress_client import AsyncClient, Client
from tests.conftest import make_settings
from tests.servers import ApiReplica, RealRedis

_names = count(1)


@pytest.fixture(scope="package")
def server(redis_server: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    with ApiReplica(redis_server.url, tmp_path_factory.mktemp("api") / "log") as replica:
        yield replica


@pytest.fixture(params=["redis", "http"])
def where(request: pytest.FixtureRequest, redis_server: RealRedis, server: ApiReplica) -> Settings:
    """The settings of a client: with the address of a server, or of Redis."""
    return make_settings(url=server.url) if request.param == "http" else make_settings(redis_url=redis_server.url)


@pytest.fixture
def id() -> str:
    """The id of an operation that does not exist yet."""
    return f"read-{next(_names)}"


@pytest.fixture
def client(where: Settings) -> Iterator[Client]:
    with Client(settings=where) as made:
        yield made


@pytest.fixture
async def aclient(where: Settings) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(settings=where) as made:
        yield made
