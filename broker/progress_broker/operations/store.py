"""The store: reads and changes operations in Redis, for API replicas and the command line."""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Self

import redis.exceptions

from progress_broker.errors import (
    BrokerError,
    SetupError,
    SlotMoving,
    StorageFull,
    StorageUnavailable,
    Unreadable,
)
from progress_broker.model.children import Tree
from progress_broker.model.entry import NewEvent
from progress_broker.model.grants import ResourceAttributes
from progress_broker.model.operation import (
    Cancel,
    Children,
    NewCancel,
    NewOperation,
    NewSignal,
    Operation,
    PublishResult,
    Status,
)
from progress_broker.model.publish import Created, Publish, Published
from progress_broker.model.validation import validated
from progress_broker.nodes.calls import Call
from progress_broker.nodes.protocol_check import check_tls, explained, tls_address
from progress_broker.nodes.redis_errors import storage_error, storage_errors
from progress_broker.nodes.replicas import MOST_MS
from progress_broker.operations import cancellation, loading, parent_notice, rollup
from progress_broker.operations.commands import (
    check_rejection,
    create_call,
    delete_call,
    probe_call,
    publish_call,
    read_answer,
    read_created,
    read_published,
    signal_call,
    worker_publish_call,
)
from progress_broker.operations.snapshot import (
    ATTRIBUTE_FIELDS,
    FIELDS,
    STANDING_FIELDS,
    has_children,
    read_attributes,
    read_snapshot,
    read_standing,
)
from progress_broker.operations.upkeep import Upkeep
from progress_broker.operations.worker_view import FIELDS as FOR_WORKERS
from progress_broker.operations.worker_view import WorkerView, read_worker_view
from progress_broker.runtime import tracing
from progress_broker.settings import Settings
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import readable
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import FanOut, is_divided
from progress_broker.storage.schema import ensure_schema, setup_errors

_LASTING = frozenset({"end", "child"})  # what a failover must not lose after it was said to be stored


class Store:
    """Operations in Redis. Every method raises `StorageUnavailable` or `StorageFull` if Redis can't answer it."""

    def __init__(self, connections: Connections, keyspace: Keyspace, settings: Settings) -> None:
        self.connections = connections
        self.keyspace = keyspace
        self.settings = settings
        self.rollups = rollup.Rollups(connections, keyspace)
        self.upkeep = Upkeep(connections, keyspace)

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect, and check that this Redis can be used and agrees with the settings; raise `SetupError` otherwise.

        It is for commands, which do not wait for Redis. So it also raises `SetupError` if Redis is unavailable.
        """
        try:
            return await cls.reach(settings)
        except StorageUnavailable as error:
            raise SetupError(error.detail) from None

    @classmethod
    async def reach(cls, settings: Settings) -> Self:
        """Connect like `open`, but raise `StorageUnavailable` or `StorageFull` for errors that may be temporary."""
        connections = Connections.open(settings)
        try:
            with setup_errors():
                if (address := tls_address(settings)) is not None:
                    await asyncio.to_thread(check_tls, address)
                try:
                    return cls(connections, await ensure_schema(connections, settings), settings)
                except StorageUnavailable as error:
                    raise await asyncio.to_thread(explained, settings, error) from None
        except BaseException:
            await connections.close()
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self.connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def now(self) -> datetime:
        """Return the time by Redis' clock. All times of operations are by that clock."""
        with storage_errors():
            seconds, microseconds = await self.connections.commands.time()
        return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)

    async def create(self, new: NewOperation) -> tuple[Operation, bool]:
        """Create an operation; return it, and whether it is new. The same call again returns the same operation.

        Raises `OperationExists` if the id was used with a different body, and `Gone` while the id is that of a deleted
        operation.
        """
        operation = new.id or secrets.token_hex(10)
        created = await self.create_for_worker(operation, new, tracing.current())
        return await self.get(operation), created.new

    async def create_for_worker(
        self, operation: str, new: NewOperation, traceparent: str, *, notify: bool = False
    ) -> Created:
        """Create an operation as `create` does, and return what its worker needs.

        With `notify`, its parent is notified also if it exists.
        """
        call = create_call(operation, self.keyspace.operation(operation), new, self.settings, traceparent)
        reply, confirmed = await self.connections.scripts.durable(call, MOST_MS)
        created = read_created(reply)._replace(confirmed=confirmed)
        if parent_notice.is_due(new, created, again=notify):
            cancel = await parent_notice.notify_parent(self, operation, new)
            created = created._replace(cancel=cancel)
        return created

    async def get(self, operation: str, *, list_children: bool = False) -> Operation:
        """Return an operation's snapshot, on request with its first children. Raises `NotFound` or `Gone`."""
        key = self.keyspace.operation(operation).snapshot
        with storage_errors():
            values: list[bytes | None] = await self.connections.commands.hmget(key, FIELDS)
        snapshot = read_snapshot(operation, values)
        if has_children(values):
            first = (await self.rollups.fill([snapshot]))[operation]
            if list_children and snapshot.children is not None:
                operations = await loading.load(self.connections, self.keyspace, self.rollups, first)
                snapshot.children = Children(**snapshot.children.model_dump(), operations=operations)
        return snapshot

    async def attributes(self, operation: str) -> ResourceAttributes | None:
        """Return the attributes that grants look at, also of a deleted operation; None if the id is unknown."""
        with storage_errors():
            values = await self.connections.commands.hmget(
                self.keyspace.operation(operation).snapshot, ATTRIBUTE_FIELDS
            )
        return read_attributes(operation, values)

    async def family(self, operation: str) -> Tree:
        """Return an operation's children, and the own children of those that report no percentage themselves."""
        with storage_errors():
            if not await self.connections.commands.hexists(self.keyspace.operation(operation).snapshot, "has_children"):
                return Tree()
        return await rollup.load(self.connections, self.keyspace, [operation])

    async def children(self, operation: str) -> rollup.ChildIds:
        """Return the ids of all children of an operation that exist when the call starts."""
        return await rollup.ids(self.connections, self.keyspace, operation)

    async def standings(self, operations: Sequence[str]) -> list[cancellation.Standing | None]:
        """Return where operations stand, in one round trip; None for each that can't be read."""
        async with self.connections.commands.pipeline(transaction=False) as pipeline:
            for operation in operations:
                pipeline.hmget(self.keyspace.operation(operation).snapshot, STANDING_FIELDS)
            with storage_errors():
                return [read_standing(values) for values in readable(await pipeline.execute(raise_on_error=False))]

    async def publish_each(self, entries: Sequence[tuple[str, NewEvent, Status]]) -> list[bool]:
        """Append an event to each operation, as an observer, in one round trip; return which were stored.

        An event is stored only if its operation has the expected status. Raises the first error of Redis itself.
        """
        calls = [
            publish_call(
                operation,
                self.keyspace.operation(operation),
                [entry],
                expect=expect,
                as_observer=True,
                traceparent=tracing.current(),
            )
            for operation, entry, expect in entries
        ]
        return [reply[0] == b"ok" for reply in await self.connections.scripts.run_all(calls)]

    async def publish(
        self,
        operation: str,
        entries: Iterable[NewEvent],
        *,
        attempt: int | None = None,
        expect: str = "",
        lease_expired: bool = False,
        lease_ms: int | None = None,
        as_observer: bool = False,
    ) -> PublishResult:
        """Append entries to an operation, all or none. Without entries it is a heartbeat. See `publish_call`.

        Raises `NotFound`, `Gone`, `OperationEnded`, `Fenced`, `InvalidInput` for a status that is not allowed next, and
        `Conflict` if the status is not the expected one.
        """
        entries = list(entries)
        types = [entry.type for entry in entries]
        keys = self.keyspace.operation(operation)
        call = publish_call(
            operation,
            keys,
            entries,
            attempt=attempt,
            expect=expect,
            lease_expired=lease_expired,
            lease_ms=lease_ms,
            as_observer=as_observer,
            traceparent=tracing.current(),
        )
        scripts, lasting = self.connections.scripts, not (lease_expired or _LASTING.isdisjoint(types))
        if lasting and await scripts.waits(call):
            return read_answer((await scripts.durable(call, MOST_MS))[0])
        return read_answer(await self.connections.queue.run(call))

    async def publish_many(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Store publishes of workers in one round trip; return the answer to each, or why it was not stored.

        If it raises, each may or may not be stored. It raises if no server of Redis answers.
        """
        calls = [worker_publish_call(publish, self.keyspace.operation(publish.operation)) for publish in publishes]
        scripts, last = self.connections.scripts, dict[int, Any]()
        for at, publish in enumerate(publishes):
            with suppress(StorageUnavailable):  # then the publish fails, too
                if publish.ends and await scripts.waits(calls[at]):
                    last[at] = calls[at]
        replies = iter(await self.connections.queue.run_each([call for at, call in enumerate(calls) if at not in last]))
        failed: list[StorageUnavailable] = []
        ended = await asyncio.gather(*(self._ended(call, failed) for call in last.values()))
        of_last = dict(zip(last, ended, strict=True))
        answers = [of_last[at] if at in last else _answer(next(replies), failed) for at in range(len(calls))]
        if failed and not await self._others_answer(len(failed) == len(answers)):
            raise failed[0]
        return answers

    async def _others_answer(self, all_failed: bool) -> bool:
        """Return whether a failure concerns some operations only, as other servers have the others'."""
        if not is_divided(self.connections, self.keyspace):
            return False
        return not all_failed or bool(await self.connections.masters())

    async def _ended(self, call: Call, failed: list[StorageUnavailable]) -> Published | BrokerError:
        """End an operation after all else that was published with it, and wait for replicas."""
        try:
            reply, confirmed = await self.connections.scripts.durable(call, MOST_MS)
        except StorageFull as error:
            return error
        except StorageUnavailable as error:
            failed.append(error)
            return error
        except (Unreadable, redis.exceptions.ResponseError) as error:
            return StorageUnavailable(f"Redis rejected a script call: {error}")
        answer = _answer(reply, failed)
        return answer._replace(confirmed=confirmed) if isinstance(answer, Published) else answer

    async def worker_view(self, operation: str) -> WorkerView:
        """Return what a worker needs of an operation; raise `NotFound` or `Gone`."""
        with storage_errors():
            values = await self.connections.commands.hmget(self.keyspace.operation(operation).snapshot, FOR_WORKERS)
        return read_worker_view(operation, values)

    async def cancel(
        self, operation: str, *, reason: str | None = None, by: str | None = None, force: bool = False
    ) -> tuple[Operation, bool]:
        """Ask the workers of an operation and its descendants to stop; return the operation, and whether it changed.

        An operation that has not begun ends at once. With `force` every operation does; later updates from its worker
        are rejected.
        Raises `NotFound` or `Gone`, and `InvalidInput` if the reason is too long.
        """
        validated(NewCancel, {"reason": reason})
        return await cancellation.cancel(self, operation, Cancel(reason=reason, by=by), force=force)

    async def cancel_of(self, operation: str) -> Cancel | None:
        """Return the cancel request of an ended operation, if there was one."""
        with storage_errors():
            state = await self.connections.commands.hmget(
                self.keyspace.operation(operation).snapshot, parent_notice.STATE
            )
        return parent_notice.cancel_of(state)

    async def signal(self, operation: str, signal: NewSignal, *, by: str | None = None) -> None:
        """Send a signal to an operation's worker. Raises `NotFound`, `Gone`, `OperationEnded` or `TooLarge`."""
        check_rejection(
            await self._run(signal_call(operation, self.keyspace.operation(operation), signal, by, self.settings))
        )

    async def delete(self, operation: str, *, force: bool = False) -> None:
        """Delete an operation. Raises `NotFound`, `Gone`, or without `force` `OperationRunning` if it has not ended."""
        keys = self.keyspace.operation(operation)
        check_rejection(await self._run(delete_call(operation, keys, force=force, settings=self.settings)))

    async def probe(self, lane: int, name: str, data: bytes) -> None:
        """Publish to a lane, as to an operation of this name, which no caller can see. Raises what `publish` raises."""
        keys = self.keyspace.operation_in(lane, name)
        check_rejection(await self._run(probe_call(keys, self.settings)))
        read_answer(await self._run(publish_call(name, keys, [NewEvent("probe", data)], as_observer=True)))

    def fan_out(self) -> FanOut:
        """Return what asks all lanes, and leaves out those that can't be reached."""
        return FanOut(self.connections, self.keyspace)

    async def _run(self, call: Call) -> Any:
        return await self.connections.scripts.run(call)


def _answer(reply: Any, failed: list[StorageUnavailable]) -> Published | BrokerError:
    """Return the answer to one publish of several. Add an error that concerns all publishes to its server to a list."""
    if isinstance(reply, redis.exceptions.RedisError | OSError):
        error = storage_error(reply)
        if isinstance(error, StorageFull | SlotMoving):  # others may be smaller, or of another slot
            return error
        if isinstance(error, StorageUnavailable):
            failed.append(error)
            return error
        return StorageUnavailable(f"Redis rejected a script call: {reply}")  # it may pass, as all errors of Redis
    try:
        return read_published(reply)
    except BrokerError as rejection:
        return rejection
