"""Passes over all operations that match a query, for what acts on each of them. None is missed, and none is told twice.

A walk goes lane by lane, each in the order of creation, which changes for no operation while it exists. Pages in the
order of last change would miss what changes between two of them.
"""

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import redis.exceptions

from progress_broker.errors import InvalidInput, StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.operation import Operation
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.loading import load_each
from progress_broker.operations.store import Store
from progress_broker.queries.choice import choose
from progress_broker.queries.filters import Filters
from progress_broker.queries.list_cursor import LATEST, MEMBERS, Mark
from progress_broker.queries.scan import Part, after, read_part, walk_call

_PART = 200
"""Operations in a part, at most."""
_LOOKED = 250

_BEFORE_ALL: Mark = (0, "")


class WalkPart(NamedTuple):
    """Some of the operations of a walk, perhaps none."""

    operations: list[Operation]
    """Without the summaries of their children."""
    cursor: str
    """Where to go on after them, with another walk. That one may tell some of them again: those that an earlier release
    created, which the order of creation has later."""
    looked: int
    """How many operations were looked at for this part."""
    lanes_away: Sequence[int]
    """The lanes that could not be reached so far. What they have is missing."""


async def walk(store: Store, filters: Filters, *, cursor: str | None = None) -> AsyncGenerator[WalkPart]:
    """Yield all operations that match, a part at a time, each of them once.

    Each one that exists, and matches, from the beginning to the end of the walk is among them. One that was created
    meanwhile may be. Lanes that can't be reached are left out, and told. Raises `InvalidInput` for a bad cursor, and
    `StorageUnavailable` or `StorageFull` if no lane can be reached.
    """
    number, place = (0, None) if cursor is None else _read_cursor(cursor)
    it = _Walk(store, filters)
    for lane in it.choice.lanes(range(number, store.keyspace.lanes)):
        if lane in it.lanes.away:
            continue
        try:
            async for part in it.lane(lane, place if lane == number else None):
                yield part
        except (StorageUnavailable, StorageFull) as error:
            it.lanes.leave_out(lane, error)
    yield WalkPart([], _write_cursor(store.keyspace.lanes, None), 0, sorted(it.lanes.away))


class _Walk:
    """One walk."""

    def __init__(self, store: Store, filters: Filters) -> None:
        self.lanes, self.choice = store.fan_out(), choose(filters, store.keyspace)
        self._store, self._filters = store, filters

    async def lane(self, number: int, place: Mark | None) -> AsyncGenerator[WalkPart]:
        """Yield the operations of a lane after a place."""
        if place is None:
            few = await self._run(number, ["CREATION"])
            if few.small and few.at_end:  # read at one moment
                yield await self._part(number, few.marks, few.looked, None)
                return
        told: set[str] = set()
        async for marks, looked in self._rest(number):
            new = [mark for mark in marks if mark[1] not in told]
            told.update(id for _, id in new)
            # A walk that goes on here tells them again, or finds them in the order.
            yield await self._part(number, new, looked, place or _BEFORE_ALL)
        # Read now, so that what was added to the order before is in it. What is created from now on is not followed.
        end, at_end = await self._last(number), False
        while not at_end:
            part = await self._run(number, ["CREATION", "ORDERED", *after(place)])
            place = part.place or place
            at_end = part.at_end or place is None or place >= end
            marks = [mark for mark in part.marks if mark <= end and mark[1] not in told]
            yield await self._part(number, marks, part.looked, None if at_end else place)

    async def _rest(self, number: int) -> AsyncGenerator[tuple[list[Mark], int]]:
        """Yield the operations of a lane that the order of creation lacks: releases that do not know it create such.

        They come first: one that is added to the order meanwhile is found there, or was found here before. Some may be
        told twice.
        """
        before: Any = None
        while True:
            server = await self._server(number)
            if server == before:
                return
            before, cursor = server, "0"
            while True:  # the cursor of a scan is one of this server: if another takes its place, it begins anew
                part = await self._run(number, ["REST", cursor])
                yield part.marks, part.looked
                if part.at_end or part.place is None:
                    break
                cursor = part.place[1]

    async def _last(self, number: int) -> Mark:
        """Return the last place in the order of a lane."""
        last: Any = None
        with suppress(Unreadable), storage_errors():
            order = self._store.keyspace.lane(number).creation_order
            last = await self._store.connections.commands.zrange(order, -1, -1, withscores=True)
        return (min(LATEST, int(last[0][1])), last[0][0].decode(*MEMBERS)) if last else _BEFORE_ALL

    async def _server(self, number: int) -> object:
        """Return what names the server of a lane, as long as it runs; None if it does not tell."""
        [(commands, _)] = self._store.connections.by_node([self._store.keyspace.lane(number).index])
        with suppress(redis.exceptions.ResponseError, ValueError), storage_errors():
            return (await commands.info("server")).get("run_id", "")
        return ""

    async def _run(self, number: int, options: Sequence[str | bytes]) -> Part:
        lane = self._store.keyspace.lane(number)
        call = walk_call(lane, _PART, _LOOKED, [*options, *self.choice.arguments(number)])
        return read_part(await self._store.connections.scripts.run(call))

    async def _part(self, number: int, marks: Sequence[Mark], looked: int, place: Mark | None) -> WalkPart:
        """Return the operations that match, and the cursor for what follows: None is the next lane."""
        found = await load_each(self._store.connections, self._store.keyspace, self.lanes, [id for _, id in marks])
        if number in self.lanes.away:
            raise self.lanes.away[number]
        operations = [it[0] for it in found if it is not None and self._filters.match(it[0])]
        cursor = _write_cursor(number + 1, None) if place is None else _write_cursor(number, place)
        return WalkPart(operations, cursor, looked, sorted(self.lanes.away))


def _write_cursor(lane: int, place: Mark | None) -> str:
    text = f"walk {lane}" if place is None else f"walk {lane} {place[0]} {place[1]}"
    return base64.urlsafe_b64encode(text.encode(*MEMBERS)).decode()


def _read_cursor(cursor: str) -> tuple[int, Mark | None]:
    try:
        word, lane, *place = base64.urlsafe_b64decode(cursor.encode()).decode(*MEMBERS).split(" ", 3)
        if word != "walk" or len(place) not in (0, 2):
            raise ValueError("it is no cursor of a walk")
        return int(lane), (int(place[0]), place[1]) if place else None
    except (binascii.Error, ValueError):
        raise InvalidInput("invalid cursor: send the one that a walk told last, unchanged", field="cursor") from None
