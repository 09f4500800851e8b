"""Signals of operations, and the requests of workers that wait for them."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis.exceptions

from progress_broker.errors import Unreadable
from progress_broker.model.event import END, GONE, SIGNAL, STATUS, Event
from progress_broker.nodes.redis_errors import storage_error
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import FanOut

SignalPosition = tuple[int, int]
"""The position up to which an operation's signals were read; (0, 0): none."""

COUNT = 100
"""How many signals of an operation are read at once: about as many as its stream keeps."""
_STREAMS_AT_ONCE = 100
_DIGITS = 16
_WAKING = frozenset({SIGNAL, STATUS, END, GONE})
"""The types of events with which the scripts send signals."""


class ArrivedSignal(NamedTuple):
    """A signal of an operation. Of the types, `cancel` and `changed` are the broker's own."""

    operation: str
    position: SignalPosition
    type: str
    data: bytes
    """JSON."""
    by: str | None
    attempt: int
    """The attempt that has begun, if the type is `changed`."""


def read_signal(operation: str, entry: Sequence[Any]) -> ArrivedSignal:
    """Return the signal in an entry of an operation's stream of signals."""
    position, pairs = entry
    ms, _, seq = position.decode().partition("-")
    fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
    type, by = fields.get(b"t", b"").decode("utf-8", "replace"), fields.get(b"b", b"").decode("utf-8", "replace")
    attempt = fields.get(b"a", b"0")  # other programs may have written anything
    number = int(attempt) if attempt.isdigit() and len(attempt) < _DIGITS else 0
    return ArrivedSignal(operation, (int(ms), int(seq)), type, fields.get(b"d", b"null"), by or None, number)


async def signals_after(
    connections: Connections, keyspace: Keyspace, positions: Mapping[str, SignalPosition]
) -> list[ArrivedSignal]:
    """Return the signals after these positions, in order, in one round trip. Raises `StorageUnavailable`.

    Operations in lanes that can't be reached have none: the feeds wake those who wait once such a lane is back.
    """
    by_lane: dict[int, dict[str, tuple[str, str]]] = {}
    for operation, (ms, seq) in positions.items():
        lane = keyspace.lane_of(operation)
        by_lane.setdefault(lane, {})[keyspace.operation_in(lane, operation).signals] = operation, f"{ms}-{seq}"

    async def read(lanes: Sequence[int]) -> list[list[ArrivedSignal]]:
        streams = {key: of_key for lane in lanes for key, of_key in by_lane[lane].items()}
        found: dict[int, list[ArrivedSignal]] = {lane: [] for lane in lanes}
        for signal in await _signals(connections, streams):
            found[keyspace.lane_of(signal.operation)].append(signal)
        return list(found.values())

    found = await FanOut(connections, keyspace).ask(read, by_lane)
    return [signal for of_lane in found.values() for signal in of_lane]


async def _signals(connections: Connections, streams: Mapping[str, tuple[str, str]]) -> list[ArrivedSignal]:
    """Return the signals in streams, each given with its operation and the position after which to read."""
    groups = [
        keys[at : at + _STREAMS_AT_ONCE]
        for keys in connections.together(streams)
        for at in range(0, len(keys), _STREAMS_AT_ONCE)
    ]
    replies = await _read(connections.commands, groups, streams)
    if foreign := [at for at, reply in enumerate(replies) if isinstance(reply, Exception)]:
        single = [[key] for at in foreign for key in groups[at]]  # one that can't be read must not hide the others
        replies = [reply for reply in replies if not isinstance(reply, Exception)]
        for (key,), reply in zip(single, await _read(connections.commands, single, streams), strict=True):
            if isinstance(reply, Exception):
                warn_once(key, str(reply))
            else:
                replies.append(reply)
    return [
        read_signal(streams[key.decode()][0], entry)
        for reply in replies
        for key, entries in reply or ()
        for entry in entries
    ]


async def _read(client: Any, groups: Sequence[Sequence[str]], streams: Mapping[str, tuple[str, str]]) -> list[Any]:
    """Return for each group its reply, or the error of a key that another program wrote."""
    try:
        async with client.pipeline(transaction=False) as pipeline:
            for group in groups:
                after = [streams[key][1] for key in group]
                pipeline.execute_command("XREAD", "COUNT", COUNT, "STREAMS", *group, *after)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
    except (redis.exceptions.RedisError, OSError) as failure:
        replies = [failure]
    for reply in replies:
        if isinstance(reply, redis.exceptions.RedisError | OSError):
            error = storage_error(reply)
            if not (error is None or isinstance(error, Unreadable)):
                raise error from None
    return replies


class SignalWait:
    """A request that waits for signals of operations."""

    def __init__(self) -> None:
        self._changed: set[str] = set()
        self._all = False
        self._woken = asyncio.Event()

    def wake(self, operation: str | None) -> None:
        """Note that an operation may have new signals; None: each may."""
        if operation is None:
            self._all = True
        else:
            self._changed.add(operation)
        self._woken.set()

    async def changed(self, operations: Iterable[str]) -> list[str]:
        """Wait, and return which of the operations may have new signals."""
        await self._woken.wait()
        self._woken.clear()
        found = list(operations) if self._all else [one for one in operations if one in self._changed]
        self._all = False
        self._changed.clear()
        return found


class SignalWaits:
    """The requests of this replica that wait for signals. The feed wakes them."""

    def __init__(self) -> None:
        self.closed = False
        """Whether this replica drains, so that nobody should wait."""
        self._waits: dict[SignalWait, None] = {}
        self._of: dict[bytes, dict[SignalWait, None]] = {}

    def __len__(self) -> int:
        return len(self._waits)

    @contextmanager
    def waiting(self, operations: Iterable[str]) -> Iterator[SignalWait]:
        """Wake the block's wait for events of these operations. Enter it before their signals are read."""
        wait, names = SignalWait(), [operation.encode() for operation in operations]
        self._waits[wait] = None
        for name in names:
            self._of.setdefault(name, {})[wait] = None
        try:
            yield wait
        finally:
            del self._waits[wait]
            for name in names:
                waits = self._of[name]
                waits.pop(wait, None)
                if not waits:
                    del self._of[name]

    def dispatch(self, events: Sequence[Event]) -> None:
        """Wake those whose operations had an event with which a signal is sent."""
        for event in events:
            waits = self._of.get(event.operation)
            if waits is not None and event.type in _WAKING:
                for wait in waits:
                    wait.wake(event.operation.decode())

    def wake_where(self, is_concerned: Callable[[str], bool]) -> None:
        """Wake those who wait for some operations: events of these may have been missed."""
        for name, waits in self._of.items():
            if is_concerned(operation := name.decode()):
                for wait in waits:
                    wait.wake(operation)

    def close(self) -> None:
        """End all waits: this replica drains."""
        self.closed = True
        for wait in self._waits:
            wait.wake(None)
