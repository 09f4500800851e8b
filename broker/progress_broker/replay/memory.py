"""A Redis in memory in which operations happen again, with their ids, positions and times, as their events are due.

All that a server needs is there, so a server over it is like the one that the operations came from, at another time.
Nothing else may be published to it: new positions would be of now, and those that are due are of the past.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Self

from progress_broker.extras import require
from progress_broker.model.event import CREATED
from progress_broker.model.operation import TERMINAL
from progress_broker.model.position import milliseconds, order
from progress_broker.operations.store import Store
from progress_broker.replay.recording import Choice, Recorded, Recording
from progress_broker.replay.states import ReplayedState
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace, LaneKeys, OperationKeys
from progress_broker.storage.schema import ensure_schema
from progress_broker.transfer.format import ExportedOperation

_ENDS = frozenset(status.value for status in TERMINAL)
_LASTS_MS = str(366 * 86_400_000).encode()
"""How long operations are said to be kept. Nothing removes them."""
_LAST = 1 << 32
"""A number after those of all events of a millisecond."""


class MemoryStore(Store):
    """A store of operations that are replayed. It is a sink of a player: each event appears when it is sent."""

    def __init__(self, connections: Connections, keyspace: Keyspace, settings: Settings) -> None:
        super().__init__(connections, keyspace, settings)
        self._operations: Mapping[str, ExportedOperation] = {}
        self._states: dict[str, ReplayedState] = {}
        self._feed_ends: dict[int, tuple[int, int]] = {}
        self._writing = asyncio.Lock()

    @classmethod
    async def in_memory(cls, settings: Settings) -> Self:
        """Return an empty store; raise `MissingExtra` without the extra `testing`."""
        require("testing", "replay --serve")
        import fakeredis
        import fakeredis.aioredis

        server = fakeredis.FakeServer()
        clients = [fakeredis.aioredis.FakeRedis(server=server, protocol=2) for _ in range(2)]
        connections = Connections.of(*clients)
        return cls(connections, await ensure_schema(connections, settings), settings)

    async def begin(self, recording: Recording, choice: Choice) -> Iterator[Recorded]:
        """Let all that was before the choice happen at once. Return the events that follow, for a player."""
        self._operations = recording.operations
        events = iter(recording.events)
        for recorded in events:
            if not choice.is_before(recorded.event):
                return chain((recorded,), events)
            await self.send((recorded,))
        return iter(())

    async def send(self, events: Sequence[Recorded]) -> None:
        """Let events happen."""
        async with self._writing:
            pipeline = self.connections.commands.pipeline(transaction=False)
            for recorded in events:
                self._happen(pipeline, recorded)
            await pipeline.execute()

    async def probe(self, lane: int, name: str, data: bytes) -> None:
        """Publish a probe to a lane's feed, right after its last entry: one of now would be after all that is due."""
        async with self._writing:
            ms, seq = self._feed_ends.get(lane, (0, 0))
            self._feed_ends[lane] = ms, seq + 1
            entry = {"o": name, "t": "probe", "d": data}
            feed = self.keyspace.lane(lane).feed
            await self.connections.commands.xadd(feed, entry, id=f"{ms}-{seq + 1}", maxlen=self.settings.feed_length)

    def _happen(self, pipeline: Any, recorded: Recorded) -> None:
        id, event = recorded
        lane = self.keyspace.lane_of(id)
        keys = self.keyspace.operation_in(lane, id)
        state = self._states.get(id)
        if state is None:
            state = self._states[id] = self._create(pipeline, lane, keys, recorded)
        before = state.status
        changes = state.take(event)
        stored = {b"n": b"%d" % event.n, b"t": event.type, b"d": event.data}
        pipeline.xadd(keys.log, stored, id=event.position)
        pipeline.hset(keys.snapshot, mapping={name: value for name, value in changes.items() if value is not None})
        if removed := [name for name, value in changes.items() if value is None]:
            pipeline.hdel(keys.snapshot, *removed)
        if state.status != before:
            pipeline.zrem(keys.lane.index_of("status", before), id)
        for key in _listed(keys.lane, state):
            pipeline.zadd(key, {id: milliseconds(event.position)})
        if state.status in _ENDS and before not in _ENDS:
            stored[b"k"] = _kind(state).encode()
        self._show(pipeline, lane, event.position, {b"o": id.encode()} | stored)

    def _create(self, pipeline: Any, lane: int, keys: OperationKeys, first: Recorded) -> ReplayedState:
        """Create an operation, right before its first event."""
        id, event = first
        state = ReplayedState(self._operations[id])
        settings, fields, (ms, seq) = self.settings, state.fields, order(event.position)
        if event.n > 1:  # its creation is not known: who follows it begins with its state, and not with that
            fields.pop(b"first_position", None)
        defaults = {b"history_length": b"%d" % settings.history_length, b"feed_length": b"%d" % settings.feed_length}
        server = {b"retention_ms": _LASTS_MS, b"idle_ms": _LASTS_MS, b"listed_ms": b"%d" % ms}
        pipeline.hset(keys.snapshot, mapping=defaults | fields | server)
        pipeline.zadd(keys.lane.creation_order, {id: int(fields[b"created"])})
        before = b"%d-%d" % ((ms, seq - 1) if seq else (ms - 1, _LAST))
        self._show(pipeline, lane, before, {b"o": id.encode(), b"t": CREATED, b"d": fields[b"indexes"]})
        return state

    def _show(self, pipeline: Any, lane: int, position: bytes, entry: Mapping[bytes, bytes]) -> None:
        """Add an entry to a lane's feed.

        It is left out if a later one is there: operations that did not share a lane may have the same position. Who
        watches hears with its next event, or at the next check.
        """
        at = order(position)
        if at > self._feed_ends.get(lane, (0, 0)):
            self._feed_ends[lane] = at
            pipeline.xadd(self.keyspace.lane(lane).feed, entry, id=position, maxlen=self.settings.feed_length)


def _listed(lane: LaneKeys, state: ReplayedState) -> list[str]:
    """Return the keys of the indexes that have an operation."""
    lines = state.fields[b"indexes"].decode("utf-8", "replace").split("\n")
    return [lane.index, lane.index_of("status", state.status), *(f"{lane.index}:{line}" for line in lines if line)]


def _kind(state: ReplayedState) -> str:
    lines = state.fields[b"indexes"].decode("utf-8", "replace").split("\n")
    return next((line.removeprefix("kind:") for line in lines if line.startswith("kind:")), "")
