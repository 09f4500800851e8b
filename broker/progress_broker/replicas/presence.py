"""Presence: what each replica tells of itself, so that operators and other replicas know which there are.

<prefix>:replica:<id>  what a replica told last, as JSON. It expires 15 s after that
<prefix>:replicas      sorted set of the ids; the score is when a replica told last, in ms since 1970 by its clock
"""

import asyncio
import os
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, Self

from pydantic import BaseModel, ValidationError

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.operation import Time
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks
from progress_broker.settings import Settings
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import replica_key, replicas_key
from progress_broker.storage.scripts import SCHEMA

KEPT_S = 15.0
"""How long a replica counts as present after it told of itself."""
EVERY_S = 5.0
_LOOK_S = 0.5
"""How often a replica looks whether it became ready, or drains, which it tells at once."""
_LISTED_S = 3_600.0
"""How long the id of a replica that has gone stays in the list. Clocks may differ by less than that."""
_LAST_S = 1.0
"""How long a replica that ends tries to tell so."""

AGREED = (
    *("feed_length", "history_length", "retention_s", "idle_timeout_s", "tombstone_ttl_s"),
    *("auth", "jwt_issuer", "jwt_audience", "public_url", "max_body_bytes"),
)
"""The settings that should be the same everywhere: else an answer depends on which replica gives it."""


class ReplicaState(BaseModel):
    """What a replica told of itself last."""

    id: str
    """The names of its connections begin with it."""
    host: str
    pid: int
    address: str
    """Where it listens, as its settings say."""
    version: str
    schema_version: int
    started_at: Time
    clock_at: Time
    """When it told this, by its clock."""
    told_s: float = 0.0
    """How long ago that was, in seconds, by Redis' clock."""
    ready: bool
    draining: bool
    reason: str | None
    """Why it is not ready."""
    refused: str = ""
    """Why Redis refused its last probe: `full`, `read-only`, `away` or `failed`; empty if it did not."""
    streams: int
    streams_max: int | None = None
    """How many streams it takes; None if it does not tell, as earlier releases."""
    websockets: int
    lag_s: float
    """The age of the newest event when it was last read from a feed; it includes the difference of both clocks."""
    lanes: int
    lanes_away: list[int]
    files_max: int
    """How many files, and so connections, its process may have open; -1: any number."""
    settings: dict[str, Any]
    """Those that should be the same everywhere."""


class Replicas(BaseModel):
    """The replicas that are present."""

    replicas: list[ReplicaState]
    differing: dict[str, list[Any]]
    """The settings that they should agree on, but don't, with their values."""


class Observed(Protocol):
    """What a replica knows of itself: a hub."""

    connections: set[Any]
    draining: bool

    @property
    def ready(self) -> bool:
        """Whether it accepts new streams."""

    @property
    def not_ready_reason(self) -> Any:
        """Why delivery is not proven to work in all lanes, or None."""

    @property
    def lag_s(self) -> float:
        """The age of the newest event when it was received."""

    @property
    def lanes(self) -> int:
        """The number of lanes."""

    @property
    def lanes_away(self) -> Mapping[int, Any]:
        """The lanes whose operations get no new streams."""

    @property
    def probes(self) -> Any:
        """The probes of all servers of Redis."""

    @property
    def streams(self) -> Any:
        """The registry of streams, with the replica's name."""


class Presence:
    """Tells of a replica every five seconds, and when its state changes. Use it as an async context manager."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        hub: Observed,
        streams_max: Callable[[], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._settings, self._hub = store, settings, hub
        self._streams_max, self._clock = streams_max, clock
        self._started_at = datetime.fromtimestamp(clock(), UTC)
        self._tasks = Tasks()
        prefix = store.keyspace.prefix
        self._key, self._list = replica_key(prefix, hub.streams.replica), replicas_key(prefix)

    async def __aenter__(self) -> Self:
        self._tasks.keep_running(self._run)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()
        with suppress(StorageUnavailable, StorageFull, Unreadable, TimeoutError):
            async with asyncio.timeout(_LAST_S), self._store.connections.commands.pipeline(transaction=False) as redis:
                redis.delete(self._key)
                redis.zrem(self._list, self._hub.streams.replica)
                with storage_errors():
                    await redis.execute()

    def state(self) -> ReplicaState:
        """Return what this replica tells of itself now."""
        hub, settings = self._hub, self._settings
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reason = "draining" if hub.draining else None if hub.ready else hub.not_ready_reason
        return ReplicaState(
            id=hub.streams.replica,
            host=socket.gethostname(),
            pid=os.getpid(),
            address=f"{settings.host}:{settings.port}",
            version=_version(),
            schema_version=SCHEMA,
            started_at=self._started_at,
            clock_at=datetime.fromtimestamp(self._clock(), UTC),
            ready=hub.ready,
            draining=hub.draining,
            reason=reason,
            refused=hub.probes.refused,
            streams=len(hub.streams),
            streams_max=self._streams_max(),
            websockets=len(hub.connections),
            lag_s=round(hub.lag_s, 4),
            lanes=hub.lanes,
            lanes_away=sorted(hub.lanes_away),
            files_max=-1 if files == resource.RLIM_INFINITY else files,
            settings={name: _plain(getattr(settings, name)) for name in AGREED},
        )

    async def tell(self) -> None:
        """Write what this replica tells of itself. Raises `StorageUnavailable`."""
        now_ms = round(self._clock() * 1000)
        try:
            async with self._store.connections.commands.pipeline(transaction=False) as redis:
                redis.set(self._key, self.state().model_dump_json(), px=round(KEPT_S * 1000))
                redis.zadd(self._list, {self._hub.streams.replica: now_ms})
                redis.zremrangebyscore(self._list, "-inf", now_ms - round(_LISTED_S * 1000))
                redis.pexpire(self._list, round(2 * _LISTED_S * 1000))
                with storage_errors():
                    await redis.execute()
        except StorageFull:  # what was told before is better than to be taken for dead
            with storage_errors():
                await self._store.connections.commands.pexpire(self._key, round(KEPT_S * 1000))

    async def _run(self) -> None:
        while True:
            told = self._standing()
            try:
                await self.tell()
            except StorageUnavailable:
                pass  # the next time
            except Unreadable as error:
                warn_once("this replica can't tell of itself in Redis", error.detail)
            for _ in range(round(EVERY_S / _LOOK_S)):
                await asyncio.sleep(_LOOK_S)
                if self._standing() != told:
                    break

    def _standing(self) -> tuple[bool, bool]:
        return self._hub.ready, self._hub.draining


async def list_replicas(store: Store) -> Replicas:
    """Return the replicas that are present, and what they disagree on. Raises `StorageUnavailable`."""
    states = await present_replicas(store)
    return Replicas(replicas=states, differing=differing_settings(states))


async def present_replicas(store: Store) -> list[ReplicaState]:
    """Return the replicas that are present, in the order of their start. Raises `StorageUnavailable`."""
    prefix, commands = store.keyspace.prefix, store.connections.commands
    with storage_errors():
        ids = [name.decode("utf-8", "replace") for name in await commands.zrange(replicas_key(prefix), 0, -1)]
    if not ids:
        return []
    async with commands.pipeline(transaction=False) as redis:
        for name in ids:
            redis.get(replica_key(prefix, name))
            redis.pttl(replica_key(prefix, name))
        with storage_errors():
            replies = await redis.execute(raise_on_error=False)
    found = [_read(told, left_ms) for told, left_ms in zip(replies[::2], replies[1::2], strict=True)]
    return sorted(filter(None, found), key=lambda state: (state.started_at, state.id))


def differing_settings(states: Sequence[ReplicaState]) -> dict[str, list[Any]]:
    """Return the settings that replicas should agree on but don't, with their values."""
    differing = {}
    for name in AGREED:
        values = [state.settings[name] for state in states if name in state.settings]
        different = [value for at, value in enumerate(values) if value not in values[:at]]
        if len(different) > 1:
            differing[name] = different
    return differing


def _read(told: Any, left_ms: Any) -> ReplicaState | None:
    if not isinstance(told, bytes) or not isinstance(left_ms, int):  # it has gone, or its server is away
        return None
    try:
        state = ReplicaState.model_validate_json(told)
    except ValidationError as error:  # another program wrote it
        warn_once("what a replica told of itself can't be read", str(error))
        return None
    return state.model_copy(update={"told_s": round(max(0.0, KEPT_S - left_ms / 1000), 3)})


def _plain(value: object) -> Any:
    return value if isinstance(value, str | int | float | None) else str(value)


def _version() -> str:
    try:
        return version("progress-broker")
    except PackageNotFoundError:  # it runs from source, without being installed
        return "unknown"
