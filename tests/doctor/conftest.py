"""A Redis as it should be, for tests that plant one fault and take it away again."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from tests.servers import RealRedis

AS_IT_SHOULD_BE = ("--maxmemory", "256mb", "--maxmemory-policy", "noeviction")


@pytest.fixture(scope="session")
def good_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with RealRedis(tmp_path_factory.mktemp("good"), keep=True, options=AS_IT_SHOULD_BE) as server:
        yield server


@pytest.fixture
def good(good_redis: RealRedis) -> Iterator[Any]:
    """A client of that Redis, which is empty."""
    with redis.Redis.from_url(good_redis.url) as client:
        client.flushall()
        yield client


@contextmanager
def configured(client: Any, **values: object) -> Iterator[None]:
    """Have a Redis configured otherwise for a while."""
    names = {name.replace("_", "-"): value for name, value in values.items()}
    before = {name: client.config_get(name)[name] for name in names}
    for name, value in names.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)
