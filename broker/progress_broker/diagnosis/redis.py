"""All that is checked at Redis. Nothing is written there."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import redis.exceptions

from progress_broker.diagnosis.bounded import PATIENCE_S
from progress_broker.diagnosis.finding import Check, Finding, Level, said_and_fix
from progress_broker.diagnosis.redis_data import examine_data
from progress_broker.diagnosis.redis_server import examine_server
from progress_broker.diagnosis.sentinels import examine_sentinels
from progress_broker.diagnosis.servers import servers_of
from progress_broker.errors import StorageUnsuitable
from progress_broker.nodes.pool_settings import address_of
from progress_broker.nodes.redis_errors import storage_error
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections

_SENTINELS = "start the sentinels, or set PROGRESS_REDIS_URL to where they are"


class Examined(NamedTuple):
    """What was found, and whether anything answered."""

    findings: list[Finding]
    reached: bool


async def examine_redis(
    settings: Settings, *, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.time
) -> Examined:
    """Check the Redis of the settings: each master of it, and the data.

    No check takes longer than `patience_s`. `clock` is this machine's, in seconds since 1970. Raises `SetupError` if
    the address is wrong.
    """
    address = address_of(settings)
    settings = settings.model_copy(update={"redis_timeout_s": patience_s})
    sentinels = await examine_sentinels(address, patience_s) if address.kind == "sentinel" else []
    try:
        async with servers_of(settings) as servers, _closing(Connections.open(settings)) as connections:
            data, results = await asyncio.gather(
                examine_data(connections, settings, patience_s),
                asyncio.gather(*(examine_server(server, settings, patience_s, clock) for server in servers)),
            )
    except (redis.exceptions.RedisError, OSError) as error:
        return Examined([_no_master(address.shown, error), *sentinels], reached=False)
    findings = sentinels + [finding for found, _ in results for finding in found]
    reached = any(answers for _, answers in results)
    return Examined([*findings, *data] if reached else findings, reached)


@asynccontextmanager
async def _closing(connections: Connections) -> AsyncIterator[Connections]:
    """Close connections at the end of the block."""
    try:
        yield connections
    finally:
        await connections.close()


def _no_master(at: str, error: redis.exceptions.RedisError | OSError) -> Finding:
    ours = storage_error(error)
    if isinstance(ours, StorageUnsuitable):
        return Finding(Check.REDIS, Level.FAULT, at, *said_and_fix(ours.detail))
    return Finding(Check.REDIS, Level.FAULT, at, ours.detail if ours else str(error), _SENTINELS)
