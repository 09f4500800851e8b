"""Brings operations of a copy to what they are in another Redis: with all their fields, positions, times and signals.

Nobody else may write to the copy meanwhile: each call names the last entry that the lane's feed has there, and scripts
reject it if another one is the last. Each call may be repeated.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple

from progress_broker.errors import Gone, InvalidInput, rejection
from progress_broker.model.operation import TERMINAL, is_id
from progress_broker.model.position import is_canonical
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.commands import all_keys
from progress_broker.operations.store import Store
from progress_broker.storage.foreign import readable
from progress_broker.storage.scripts import MIRROR, SCHEMA
from progress_broker.transfer.format import ExportedEvent
from progress_broker.transfer.redis.source import read_each, read_entries
from progress_broker.transfer.redis.staging import Staging

_FIELDS = (
    *("gone", "schema", "indexes", "status", "created", "n", "position", "attempt", "worker"),
    *("expires", "listed_ms", "retention_ms", "idle_ms", "keep_ms", "keep_idle_ms"),
    *("lease_ms", "lease_override_ms", "has_children"),
)
"""What differs if anything does that counts: all else changes together with `n`, or with one of these."""
_OWN = (b"archived", b"curve_ms")
"""Fields about older events, which the copy moves itself."""
_EVENTS, _BYTES = 100, 256 * 1024
"""About how much one call of Redis stores."""
_STEPS = 25
"""How many operations are read at once."""
_SIGNALS = 200
"""More signals than a stream of them has."""
_TOGETHER = 8
"""How many operations are copied whole at the same time."""
_NAME = "copy"
"""One copy at a time is made of a Redis, so what a copy that was killed has staged is in nobody's way."""
_SCHEMA = str(SCHEMA).encode()
_ENDS = frozenset(status.value.encode() for status in TERMINAL)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How far an operation is somewhere."""

    fields: Mapping[str, bytes | None]
    signal: bytes | None
    """The position of the last signal to its worker."""

    def __getitem__(self, name: str) -> bytes:
        return self.fields[name] or b""

    @property
    def gone(self) -> bool:
        """Whether it is a tombstone."""
        return self.fields["gone"] is not None

    @property
    def exists(self) -> bool:
        """Whether it is an operation of this schema."""
        known = self["schema"] == _SCHEMA and not self.gone and is_canonical(self["position"])
        return known and self["n"].isdigit() and self["created"].isdigit()

    @property
    def ended(self) -> bool:
        """Whether it has ended, so that signals don't count any more."""
        return self["status"] in _ENDS

    def is_copied_by(self, copy: "_Standing") -> bool:
        """Whether a copy has all of it."""
        if self.gone:
            return copy.gone
        if not self.exists:
            return not copy.exists
        return self.fields == copy.fields and (self.ended or self.signal == copy.signal)

    def continues(self, copy: "_Standing") -> bool:
        """Whether it is the same operation as the copy, and as far or further."""
        return copy.exists and copy["created"] == self["created"] and int(copy["n"]) <= int(self["n"])


class Mirror:
    """Keeps the operations of one Redis the same in another one, which has as many lanes."""

    def __init__(self, source: Store, target: Store) -> None:
        self._source, self._target = source, target
        self.left_out: dict[str, str] = {}
        """Operations that the target can't have, and why."""

    async def bring(self, ids: Sequence[str], feed_at: bytes) -> int:
        """Bring operations of one lane to what the source has by now; return how many of them differed.

        Raises `Conflict` if anybody else wrote to the lane: its feed does not end with `feed_at`.
        """
        due, differed, copied = [id for id in dict.fromkeys(ids) if is_id(id)], set[str](), set[str]()
        while due:
            both = await asyncio.gather(_standings(self._source, due), _standings(self._target, due))
            ours, copies = (dict(zip(due, standings, strict=True)) for standings in both)
            due = [id for id in due if not ours[id].is_copied_by(copies[id]) and id not in self.left_out]
            differed.update(due)
            await self._call([self._remove(id, ours[id], feed_at) for id in due if not ours[id].exists])
            there = [id for id in due if ours[id].exists]
            again, whole = [], [id for id in there if not ours[id].continues(copies[id])]
            following = [id for id in there if ours[id].continues(copies[id])]
            for at in range(0, len(following), _STEPS):
                some = {id: copies[id] for id in following[at : at + _STEPS]}
                steps = await self._steps(some, feed_at)
                await self._call([step.call for step in steps.values() if step.call is not None])
                again += [id for id in some if id not in steps or not steps[id].complete]
                whole += [id for id, step in steps.items() if step.call is None]
            whole = [id for id in whole if id not in copied]  # else its log is damaged at the source
            left = await self._copy_each(whole, feed_at)
            copied.update(set(whole).difference(left))
            again += left
            signalled = [id for id in whole if not ours[id].ended and ours[id].signal != copies[id].signal]
            again += [id for id in signalled if id in copied]
            due = list(dict.fromkeys(again))
        return len(differed)

    def _remove(self, id: str, standing: _Standing, feed_at: bytes) -> Call:
        # An operation whose time has passed leaves no tombstone.
        gone_ms = round(1000 * self._source.settings.tombstone_ttl_s) if standing.gone else 0
        args: list[str | bytes] = [id, "IF_FEED", feed_at, "GONE", str(gone_ms), "INDEXES", standing["indexes"]]
        return Call(MIRROR, all_keys(self._target.keyspace.operation(id)), args)

    async def _steps(self, following: Mapping[str, _Standing], feed_at: bytes) -> "dict[str, _Step]":
        """Return what comes next for each operation; none for those that were deleted or created again meanwhile."""
        async with self._source.connections.commands.pipeline(transaction=False) as pipeline:
            for id, copy in following.items():
                keys = self._source.keyspace.operation(id)
                pipeline.hgetall(keys.snapshot)
                pipeline.xrange(keys.log, min=copy["position"], count=_EVENTS + 1)
                pipeline.xrange(keys.signals, count=_SIGNALS)
            with storage_errors():
                replies = iter(readable(await pipeline.execute(raise_on_error=False)))
        steps = {}
        for id, copy in following.items():
            state, log, signals = (next(replies) for _ in range(3))
            if state and state.get(b"created") == copy["created"] and int(state.get(b"n", b"0")) >= int(copy["n"]):
                ours = all_keys(self._target.keyspace.operation(id))
                steps[id] = _step(id, ours, copy, feed_at, _Read(state, read_entries(log or ()), signals or ()))
        return steps

    async def _copy_each(self, ids: Sequence[str], feed_at: bytes) -> list[str]:
        """Copy operations whole; return those that were deleted or created again meanwhile."""
        again = []
        for at in range(0, len(ids), _TOGETHER):
            some = ids[at : at + _TOGETHER]
            whole = await _all(self._copy_whole(id, feed_at) for id in some)
            again += [id for id, is_whole in zip(some, whole, strict=True) if not is_whole]
        return again

    async def _copy_whole(self, id: str, feed_at: bytes) -> bool:
        for copy in await read_each(self._source, [id]):
            fields = copy.operation.fields
            archived = fields.get(b"archived", b"0")
            staging = Staging(self._target, id, int(archived) if archived.isdigit() else 0, _NAME)
            try:
                async with aclosing(copy.events()) as parts:
                    async for part in parts:
                        await staging.add(part)
                await staging.adopt(fields, replace=True, as_is_at=feed_at)
                return True
            except Gone:
                await staging.drop()
            except InvalidInput as error:
                await staging.drop()
                self.left_out[id] = error.detail
                return True
            except BaseException:
                await staging.drop()
                raise
        return False

    async def _call(self, calls: Sequence[Call]) -> None:
        if not calls:
            return
        for reply in await self._target.connections.queue.run_each(calls):
            if isinstance(reply, Exception):
                with storage_errors():
                    raise reply
            if reply[0] != b"ok":
                raise rejection(reply[0].decode(), reply[1].decode("utf-8", "replace"))


class _Read(NamedTuple):
    """What was read of an operation at the source: its state first, and then its log from where the copy ends."""

    state: Mapping[bytes, bytes]
    events: Sequence[ExportedEvent]
    signals: Sequence[Any]


class _Step(NamedTuple):
    """The next step of a copy."""

    call: Call | None
    """None: it has to be copied whole, as the log of the source does not go on where the copy ends."""
    complete: bool
    """Whether the copy has all afterwards."""


def _step(id: str, keys: Sequence[str], copy: _Standing, feed_at: bytes, read: _Read) -> _Step:
    state, n = read.state, int(read.state[b"n"])
    last, new = read.events[:1], [event for event in read.events[1:] if event.n <= n]
    if not last or (last[0].n, last[0].position) != (int(copy["n"]), copy["position"]):
        return _Step(None, complete=True)
    if [event.n for event in new] != list(range(last[0].n + 1, last[0].n + 1 + len(new))):
        return _Step(None, complete=True)
    part, size = list(last), 0
    for event in new:
        part.append(event)
        size += len(event.data)
        if size >= _BYTES:
            break
    complete = part[-1].n == n
    if complete and part[-1].position != state.get(b"position"):
        return _Step(None, complete=True)
    if not complete and len(part) == 1:
        return _Step(None, complete=True)
    args: list[str | bytes] = [id, "IF_FEED", feed_at, *(("SIGNALS",) if complete else ("PART",))]
    for event in part[1:]:
        args += _entry("EVENT", event.position, _fields_of(event))
    if complete:
        for position, fields in read.signals:
            args += _entry("SIGNAL", position, fields)
    args.append("FIELDS")
    if complete:
        for name, value in state.items():
            if name not in _OWN:
                args += (name, value)
    else:
        args += ("n", b"%d" % part[-1].n, "position", part[-1].position)
    return _Step(Call(MIRROR, keys, args), complete=complete)


def _fields_of(event: ExportedEvent) -> Sequence[bytes]:
    fields = (b"n", b"%d" % event.n, b"t", event.type, b"d", event.data)
    return (*fields, b"p", event.producer, b"s", event.seq) if event.producer else fields


def _entry(word: str, position: bytes, fields: Sequence[bytes]) -> list[str | bytes]:
    return [word, position, str(len(fields)), *fields]


async def _standings(store: Store, ids: Sequence[str]) -> list[_Standing]:
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for id in ids:
            keys = store.keyspace.operation(id)
            pipeline.hmget(keys.snapshot, _FIELDS)
            pipeline.xrevrange(keys.signals, count=1)
        with storage_errors():
            replies = iter(readable(await pipeline.execute(raise_on_error=False)))
    found = []
    for _ in ids:
        values, signals = next(replies), next(replies)
        fields = dict(zip(_FIELDS, values or [None] * len(_FIELDS), strict=True))
        found.append(_Standing(fields, signals[0][0] if signals else None))
    return found


async def _all(work: Iterable[Coroutine[Any, Any, bool]]) -> list[bool]:
    """Return the results of coroutines that run at the same time. All have ended when this raises the first error."""
    done = []
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
