"""The store: every Redis command an API replica or the command line sends lives behind it, but for the feed's."""

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import redis.exceptions

from broker import cancelling, listing, noting, positions, rollup, startup, tracing
from broker.calls import create_call, delete_call, probe_call, signal_call
from broker.children import Tree
from broker.connections import BLOCK_MS, Connections, storage_errors
from broker.errors import SetupError, StorageUnavailable
from broker.events import Event, read_entry
from broker.grants import Facts
from broker.keys import Keyspace
from broker.models import Answer, Cancel, Children, NewOperation, NewSignal, Operation, Status
from broker.publishing import Entry, check_refusal, publish_call, read_answer
from broker.scripts import LAPSED, SWEEP, Call
from broker.settings import Settings
from broker.snapshots import FACTS, FIELDS, is_parent, read_facts, read_snapshot

_STATUSES = frozenset(status.value.encode() for status in Status)

UNREADABLE = -1
"""The length of an operation into which a foreign hand has written something else."""


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of an operation's log after a position, oldest first."""

    events: list[Event]
    at: Event | None = None
    """The event at the position itself, if there is one."""
    reset: str | None = None
    """Why the log can't be read from the position: `trimmed` or `lost`."""


class Store:
    """Operations in Redis. Every method raises `StorageUnavailable` or `StorageFull` when Redis can't serve it."""

    def __init__(self, connections: Connections, keyspace: Keyspace, settings: Settings) -> None:
        self.connections = connections
        self.keyspace = keyspace
        self.settings = settings

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect, and check that this Redis suits and agrees with the settings; raise `SetupError` otherwise."""
        connections = Connections.open(settings, lanes=1)
        try:
            keyspace = await agree(connections, settings)
        except StorageUnavailable as error:
            raise SetupError(error.detail) from None
        finally:
            await connections.close()
        return cls(Connections.open(settings, keyspace.lanes), keyspace, settings)

    async def close(self) -> None:
        """Close the connections."""
        await self.connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def create(self, new: NewOperation) -> tuple[Operation, bool]:
        """Create an operation, and say whether it is new; the same body again is the same operation.

        Raises `OperationExists` for another body under the same id, and `Gone` while its id is a deleted one's.
        """
        operation = new.id or secrets.token_hex(10)
        call = create_call(operation, self.keyspace.operation(operation), new, self.settings, tracing.current())
        reply = await self._run(call)
        check_refusal(reply)
        if noting.is_due(new, reply):
            await noting.note(self, operation, new)
        return await self.get(operation), bool(reply[4])

    async def get(self, operation: str, *, list_children: bool = False) -> Operation:
        """Return an operation's snapshot, with a list of its first children if wanted. Raises `NotFound` or `Gone`."""
        key = self.keyspace.operation(operation).snapshot
        with storage_errors():
            values: list[bytes | None] = await self.connections.commands.hmget(key, FIELDS)
        snapshot = read_snapshot(operation, values)
        if is_parent(values):
            tree = await rollup.fill(self.connections.commands, self.keyspace, [snapshot])
            if list_children and snapshot.children is not None:
                first = [child.id for child in tree.shown(operation)]
                operations = await listing.load(self.connections.commands, self.keyspace, first)
                snapshot.children = Children(**snapshot.children.model_dump(), operations=operations)
        return snapshot

    async def facts(self, operation: str) -> Facts | None:
        """Return what grants look at in an operation, or in one that was deleted; None if there is none."""
        with storage_errors():
            values = await self.connections.commands.hmget(self.keyspace.operation(operation).snapshot, FACTS)
        return read_facts(operation, values)

    async def family(self, operation: str) -> Tree:
        """Return an operation's children, and theirs where only those tell how far a child is."""
        with storage_errors():
            if not await self.connections.commands.hexists(self.keyspace.operation(operation).snapshot, "parent"):
                return Tree()
        return await rollup.load(self.connections.commands, self.keyspace, [operation])

    async def children(self, operation: str) -> list[str]:
        """Return the ids of an operation's children, however many. One that exists now is not missed."""
        return await rollup.ids(self.connections.commands, self.keyspace, operation)

    async def find(
        self, filters: listing.Filters, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Operation], str | None]:
        """Return operations, newest change first, and the cursor of the next page, or None at the end.

        A page may hold fewer than `limit` and still have a next one. Raises `Invalid` for a cursor that is none.
        """
        return await listing.page(self.connections.commands, self.keyspace, filters, limit, cursor)

    async def publish(
        self,
        operation: str,
        entries: Iterable[Entry],
        *,
        attempt: int | None = None,
        expect: str = "",
        lapsed: bool = False,
        silent_ms: int | None = None,
    ) -> Answer:
        """Append entries to an operation, all or none; without entries it is a beat. See `publish_call`.

        Raises `NotFound`, `Gone`, `OperationEnded`, `Fenced`, `Invalid` for a status that can't follow, and
        `Conflict` if it is not as expected.
        """
        keys = self.keyspace.operation(operation)
        call = publish_call(
            operation,
            keys,
            entries,
            attempt=attempt,
            expect=expect,
            lapsed=lapsed,
            silent_ms=silent_ms,
            traceparent=tracing.current(),
        )
        return read_answer(await self._run(call))

    async def cancel(
        self, operation: str, *, reason: str | None = None, by: str | None = None, force: bool = False
    ) -> tuple[Operation, bool]:
        """Ask an operation's worker, and its children's, to stop, and say whether that changed anything.

        One not begun ends at once, and by `force` any does: its worker is refused from then on.
        Raises `NotFound` or `Gone`.
        """
        return await cancelling.cancel(self, operation, Cancel(reason=reason, by=by), force=force)

    async def signal(self, operation: str, signal: NewSignal, *, by: str | None = None) -> None:
        """Send a signal to an operation's worker. Raises `NotFound`, `Gone`, `OperationEnded` or `TooLarge`."""
        check_refusal(
            await self._run(signal_call(operation, self.keyspace.operation(operation), signal, by, self.settings))
        )

    async def delete(self, operation: str, *, force: bool = False) -> None:
        """Forget an operation. Raises `NotFound`, `Gone`, or `OperationRunning` unless it has ended or force is on."""
        keys = self.keyspace.operation(operation)
        check_refusal(await self._run(delete_call(operation, keys, force=force, settings=self.settings)))

    async def probe(self, lane: int, name: str, data: bytes) -> None:
        """Publish to a lane, as to an operation of this name that nobody else can see. Raises what `publish` does."""
        keys = self.keyspace.operation_in(lane, name)
        check_refusal(await self._run(probe_call(keys, self.settings)))
        read_answer(await self._run(publish_call(name, keys, [Entry("probe", data)], silent_ms=0)))

    async def tail(self, operation: str, count: int) -> list[Event]:
        """Return the last events of an operation's log, oldest first, `count` at most."""
        with storage_errors():
            entries = await self.connections.commands.xrevrange(self.keyspace.operation(operation).log, count=count)
        return _events(operation, reversed(entries))

    async def after(self, operation: str, position: str, count: int) -> Page:
        """Return what follows a position in an operation's log, `count` events at most.

        A position that the log does not hold is told as `trimmed` if it is older than what is kept, else as `lost`;
        then the page is empty. `0-0` is before everything, and `trimmed` if the first event is no longer kept.
        """
        key = self.keyspace.operation(operation).log
        with storage_errors():
            entries = await self.connections.commands.xrange(key, min=position, count=count + 1)
            if entries and entries[0][0] == position.encode():
                events = _events(operation, entries)
                return Page(events[1:], events[0])
            first = entries if position == positions.START else await self.connections.commands.xrange(key, count=1)
        kept = _events(operation, first)
        if position == positions.START:
            whole = not kept or kept[0].n == 1
            return Page(kept[:count]) if whole else Page([], reset="trimmed")
        asked = positions.parse(position)
        trimmed = bool(kept) and kept[0].n > 1 and asked < positions.parse(kept[0].position.decode())
        return Page([], reset="trimmed" if trimmed else "lost")

    async def kept(self, operation: str, count: int) -> list[Event]:
        """Return the first events of an operation's log that are still kept, `count` at most."""
        with storage_errors():
            entries = await self.connections.commands.xrange(self.keyspace.operation(operation).log, count=count)
        return _events(operation, entries)

    async def follow(self, operation: str, position: str) -> AsyncIterator[Event]:
        """Yield what follows a position in an operation's log until its `end`, by a blocking XREAD of that log.

        For one reader with a connection to spare, such as the command line; replicas follow the feeds.
        Raises `NotFound` or `Gone` when the operation vanishes.
        """
        key = self.keyspace.operation(operation).log
        client: Any = self.connections.for_blocking()
        while True:
            with storage_errors():
                reply: Any = await client.execute_command(
                    "XREAD", "COUNT", self.settings.page_length, "BLOCK", BLOCK_MS, "STREAMS", key, position
                )
            if not reply:
                now = await self.get(operation)
                if now.done and now.position == position:
                    return
                continue
            for event in _events(operation, reply[0][1]):
                yield event
                position = event.position.decode()
                if event.type == b"end":
                    return

    async def lengths(self, operations: Sequence[str]) -> list[int | None]:
        """Return how many events each operation has, None for one not there (or deleted), or `UNREADABLE`."""
        async with self.connections.commands.pipeline(transaction=False) as pipeline:
            for operation in operations:
                pipeline.hget(self.keyspace.operation(operation).snapshot, "n")
            with storage_errors():
                return [_length(n) for n in await pipeline.execute(raise_on_error=False)]

    async def sweep(self, *, most: int = 200) -> int:
        """Remove what is left of operations whose time has passed, `most` a lane, and return how many."""
        swept = 0
        for number in range(self.keyspace.lanes):
            lane = self.keyspace.lane(number)
            keys = (lane.index, lane.expiry, lane.leases)
            swept += int(await self._run(Call(SWEEP, keys, (lane.operations, str(most)))))
        return swept

    async def lapsed(self, *, most: int = 200) -> list[tuple[str, Status]]:
        """Return operations whose worker has been silent for longer than its lease, `most` a lane."""
        found = []
        for number in range(self.keyspace.lanes):
            lane = self.keyspace.lane(number)
            told = iter(await self._run(Call(LAPSED, (lane.leases,), (lane.operations, str(most)))))
            found += [
                (operation.decode(), Status(status.decode()))
                for operation, status in zip(told, told, strict=True)
                if status in _STATUSES  # a foreign hand may have written another
            ]
        return found

    async def _run(self, call: Call) -> Any:
        return await run(self.connections.commands, call)


async def run(client: Any, call: Call) -> Any:
    """Run a script; load it first where the server does not know it (a restart or a promotion empties its cache)."""
    with storage_errors():
        try:
            return await client.execute_command(*call.command())
        except redis.exceptions.NoScriptError:
            await client.script_load(call.script.text)
            return await client.execute_command(*call.command())


async def agree(connections: Connections, settings: Settings) -> Keyspace:
    """Check that this Redis suits, and return the keyspace all its users share; raise `SetupError` otherwise."""
    # A server that won't tell (a managed one, or the test double) is taken at its word.
    with storage_errors(), suppress(redis.exceptions.ResponseError):
        startup.check_server(await connections.commands.info())
    return startup.read_meta(await run(connections.commands, startup.meta_call(settings)), settings)


def _length(reply: Any) -> int | None:
    if reply is None:
        return None
    return int(reply) if isinstance(reply, bytes) and reply.isdigit() else UNREADABLE


def _events(operation: str, entries: Iterable[Any]) -> list[Event]:
    name = operation.encode()
    found = (read_entry(name, entry) for entry in entries)
    return [event for event in found if event is not None and event.n > 0]
