"""Stores operations in Redis, each whole or not at all."""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum, auto
from typing import NamedTuple

import orjson

from progress_broker.errors import BrokerError, Conflict, Gone, InvalidInput, OperationExists
from progress_broker.model.operation import TERMINAL, Status, is_id
from progress_broker.model.position import milliseconds, parse
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.transfer.endpoints import (
    ImportOptions,
    OnConflict,
    OperationCopy,
    OperationSource,
    Outcome,
    Positions,
    Result,
    Unfinished,
)
from progress_broker.transfer.files.operation_line import portable
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import ExportedEvent, ExportedOperation
from progress_broker.transfer.redis.publishing import publish_again
from progress_broker.transfer.redis.source import read_one
from progress_broker.transfer.redis.staging import Staging
from progress_broker.transfer.republishing import END_DATA
from progress_broker.transfer.state import read_state

_INDEX = re.compile(rb"(kind|owner|parent|tag|metadata):[^\n]+")
_ENDS = frozenset(status.value.encode() for status in TERMINAL)


class _There(Enum):
    """What the target has under an id."""

    NOTHING = auto()
    TOMBSTONE = auto()
    LIKELY_SAME = auto()
    """An operation with the same spec and position."""
    ANOTHER = auto()


_OTHERS = (_There.ANOTHER, _There.TOMBSTONE)


class _Plan(NamedTuple):
    """An operation as it is to be stored."""

    operation: ExportedOperation
    last: tuple[ExportedEvent, ...] = ()
    """Events after those of the source."""


class RedisTarget:
    """Stores operations in a Redis."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def store(self, source: OperationSource, options: ImportOptions) -> AsyncGenerator[Outcome]:
        """Store operations; yield what came of each."""
        async with aclosing(source.operations()) as copies:
            async for copy in copies:
                if options.positions is Positions.NEW:
                    yield await publish_again(self._store, copy, options)
                else:
                    yield await self._store_one(copy, options)

    async def _store_one(self, copy: OperationCopy, options: ImportOptions) -> Outcome:
        id = copy.operation.id + options.suffix
        try:
            plan = _planned(copy.operation, options)
            there = await self._there(plan.operation)
            if there in _OTHERS and options.on_conflict is not OnConflict.REPLACE:
                why = "it was deleted here, and its id is not free yet" if there is _There.TOMBSTONE else ""
                return _kept(id, options, why)
            return await self._store_whole(copy, plan, there, options)
        except (OperationExists, Conflict, Gone) as error:
            return Outcome(id, Result.CONFLICT, error.detail)
        except _Refused as refusal:
            return Outcome(id, Result.REFUSED, str(refusal))

    async def _there(self, operation: ExportedOperation) -> _There:
        key = self._store.keyspace.operation(operation.id).snapshot
        with storage_errors():
            gone, spec, position = await self._store.connections.commands.hmget(key, ("gone", "spec", "position"))
        if gone is not None:
            return _There.TOMBSTONE
        if spec is None and position is None:
            return _There.NOTHING
        same = spec == operation.fields[b"spec"] and position == operation.position
        return _There.LIKELY_SAME if same else _There.ANOTHER

    async def _store_whole(self, copy: OperationCopy, plan: _Plan, there: _There, options: ImportOptions) -> Outcome:
        operation, id = plan.operation, plan.operation.id
        writer = ExportWriter() if there is _There.LIKELY_SAME else None
        if writer is not None:
            writer.operation(operation)
        staging = None if options.dry_run else Staging(self._store, id, int(operation.fields.get(b"archived", b"0")))
        try:
            await _pass_on(copy, plan, staging, writer)
            if writer is not None:
                if writer.end()[1].sha256 == await self._digest(id):
                    return Outcome(id, Result.SKIPPED, "it is there already, with the same events")
                if options.on_conflict is not OnConflict.REPLACE:
                    return _kept(id, options, "it is there with other events")
            replaces = there is not _There.NOTHING
            if staging is not None:
                replaces = await staging.adopt(self._fields(operation), replace=replaces)
                staging = None
            return Outcome(id, Result.REPLACED if replaces else Result.STORED)
        except InvalidInput as error:
            if type(error) is not InvalidInput:  # the source is damaged
                raise
            return Outcome(id, Result.REFUSED, error.detail)
        finally:
            if staging is not None:
                await staging.drop()

    async def _digest(self, id: str) -> str:
        """Return the digest of an operation that is there."""
        writer, copy = ExportWriter(), await read_one(self._store, id)
        writer.operation(copy.operation)
        async for part in copy.events():
            writer.events(part)
        return writer.end()[1].sha256

    def _fields(self, operation: ExportedOperation) -> dict[bytes, bytes]:
        settings, fields = self._store.settings, portable(operation.fields)
        producers = sum(name.startswith(b"producer:") for name in fields)
        if producers:
            fields[b"producers"] = b"%d" % producers
        defaults = {b"history_length": b"%d" % settings.history_length, b"feed_length": b"%d" % settings.feed_length}
        return defaults | {b"indexes": b""} | fields


class _Refused(Exception):
    """An operation can't be stored. Its text says why, and what to do."""


async def _pass_on(copy: OperationCopy, plan: _Plan, staging: Staging | None, writer: ExportWriter | None) -> None:
    """Read the events to their end. Store them, and write them for their digest, as far as that is wanted."""

    async def pass_on(events: "list[ExportedEvent] | tuple[ExportedEvent, ...]") -> None:
        if writer is not None:
            writer.events(events)
        if staging is not None:
            await staging.add(events)

    try:
        async with aclosing(copy.events()) as events:
            async for part in events:
                await pass_on(list(part))
    except Gone as error:
        raise _Refused(error.detail) from None
    if plan.last:
        await pass_on(plan.last)


def _planned(operation: ExportedOperation, options: ImportOptions) -> _Plan:
    """Return an operation as it is to be stored; raise `_Refused` if it can't be."""
    _check(operation)
    if options.suffix:
        operation = _renamed(operation, options.suffix)
    if operation.fields[b"status"] in _ENDS or options.unfinished is Unfinished.KEEP:
        return _Plan(operation)
    if options.unfinished is Unfinished.REFUSE:
        raise _Refused("it has not ended: choose with --unfinished whether to end it, or to keep it as it is")
    return _ended(operation)


def _check(operation: ExportedOperation) -> None:
    fields = operation.fields
    try:
        read_state(operation)
        int(fields.get(b"archived", b"0"))
        if not isinstance(orjson.loads(fields[b"spec"]), dict):
            raise ValueError
    except (BrokerError, ValueError):
        raise _Refused("its state is not valid") from None
    lines = [line for line in fields.get(b"indexes", b"").split(b"\n") if line]
    if wrong := [line for line in lines if _INDEX.fullmatch(line) is None]:
        raise _Refused(f"{wrong[0][:60]!r} is no index")


def _ended(operation: ExportedOperation) -> _Plan:
    """Return an operation with an end right after its last event."""
    ms, seq = parse(operation.position.decode())
    position, n = b"%d-%d" % (ms, seq + 1), operation.n + 1
    changed = {
        b"status": Status.FAILED.value.encode(),
        b"outcome": END_DATA,
        b"finished": b"%d" % milliseconds(position),
        b"n": b"%d" % n,
        b"position": position,
    }
    ended = operation._replace(fields={**operation.fields, **changed}, n=n, position=position)
    return _Plan(ended, (ExportedEvent(n, position, b"end", END_DATA),))


def _renamed(operation: ExportedOperation, suffix: str) -> ExportedOperation:
    """Return an operation with a suffix at its id, and at that of its parent."""
    id = operation.id + suffix
    if not is_id(id):
        raise _Refused(f"{id[:100]!r}, with the suffix, is no id of an operation")
    operation = operation._replace(id=id)
    spec = orjson.loads(operation.fields[b"spec"])
    if not spec.get("parent"):
        return operation
    before = f"parent:{spec['parent']}".encode()
    lines = [line + suffix.encode() if line == before else line for line in operation.indexes.split(b"\n")]
    indexes, spec["parent"] = b"\n".join(lines), spec["parent"] + suffix
    written = orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)  # as `create` writes it
    return operation._replace(fields={**operation.fields, b"spec": written, b"indexes": indexes}, indexes=indexes)


def _kept(id: str, options: ImportOptions, why: str) -> Outcome:
    """Return the outcome for an operation whose place another one keeps."""
    why = why or "there is another operation of this id"
    if options.on_conflict is OnConflict.SKIP:
        return Outcome(id, Result.SKIPPED, why)
    return Outcome(id, Result.CONFLICT, why)
