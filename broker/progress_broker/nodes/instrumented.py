"""Round trips: statistics of this process' calls to Redis, except reads of feeds: number, duration, failures."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import redis.asyncio as aioredis
from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, NoScriptError, TryAgainError

from progress_broker.runtime.tally import Histogram

BOUNDS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


_EXPECTED = (NoScriptError, AskError, TryAgainError)  # and MovedError
"""Errors after which the same call is made again: the script is loaded, or a Cluster has moved its keys."""


class ClientMetrics:
    """Counts since the process started, by call: a script's verb, `command` for a single command, or `pipeline`."""

    def __init__(self, verbs: Mapping[str, str]) -> None:
        self.verbs = verbs
        """The name of each script, by its SHA-1."""
        calls = (*verbs.values(), "command", "pipeline")
        self.took_s = {call: Histogram(BOUNDS_S) for call in calls}
        self.failed = Counter(dict.fromkeys(calls, 0))
        self.connected = 0
        """The number of connections made. Beyond the pools' size, each new one has replaced a lost connection."""
        self.made = asyncio.Event()
        """Set when a connection was made, perhaps to another server than before."""

    async def on_connect(self, connection: Any) -> None:
        """Count a connection, then do its handshake."""
        self.connected += 1
        await connection.on_connect()
        self.made.set()

    def record(self, call: str, since: float) -> None:
        """Count a successful call."""
        self.took_s[call].observe(time.perf_counter() - since)


class CountedRedis(aioredis.Redis):
    """A client that counts its calls."""

    trips: ClientMetrics

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""
        call = self.trips.verbs.get(args[1], "command") if args[0] == "EVALSHA" else "command"
        began = time.perf_counter()
        try:
            reply = await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except BaseException as error:
            if not isinstance(error, _EXPECTED):
                self.trips.failed[call] += 1
            raise
        self.trips.record(call, began)
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "CountedPipeline":
        """Return a pipeline. It counts as one call, for any number of commands."""
        pipeline = CountedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.trips = self.trips
        return pipeline


def counted(pool: Any, trips: ClientMetrics) -> CountedRedis:
    """Return a client that owns this pool and counts its calls."""
    client: Any = CountedRedis.from_pool(pool)
    client.trips = trips
    return client  # type: ignore[no-any-return]


class CountedPipeline(Pipeline):
    """A pipeline that counts its calls."""

    trips: ClientMetrics

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send the commands, and return the replies."""
        began = time.perf_counter()
        try:
            replies = await super().execute(raise_on_error)
        except BaseException:
            self.trips.failed["pipeline"] += 1
            raise
        self.trips.record("pipeline", began)
        return replies
