import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from progress_workers import AsyncOperation, Operation
from progress_workers.testing import Recording, recording
from tests.servers import RealRedis, free_port
from tests.workers.harness import Broker


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    broker = Broker(redis_url)
    yield broker
    broker.redis.close()


@pytest.fixture
def kept_redis(tmp_path: Path) -> Iterator[RealRedis]:
    """A server that persists every write, so that killing it loses nothing."""
    with RealRedis(tmp_path / "kept", keep=True, port=free_port(), options=("--appendfsync", "always")) as server:
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
