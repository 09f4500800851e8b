"""The audit: who changed what. Each entry is a line of the log `progress_broker.audit`, and is kept in Redis.

<prefix>:audit          a stream of the entries, about the newest 10,000
<prefix>:audit:creates  the same of created operations, so that a busy day does not push the others out
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.model.operation import Time
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.storage.keys import audit_keys

log = logging.getLogger("progress_broker.audit")

Via = Literal["http", "ws", "redis", "signal"]

CREATE = "create"
"""The action whose entries are kept apart."""
PATIENCE_S = 0.5
"""How long an action waits for its entry to be stored. The log has the entry in any case."""
LENGTH = 10_000
"""About how many entries each stream keeps."""
_MOST_WAITING = 10_000
_TOGETHER = 500
LONGEST = 1_024
"""The most characters of one field."""
_PAGE = 1_000
_NEWEST = "+"


class AuditEntry(NamedTuple):
    """What somebody did. Its time is that of the line."""

    who: str
    """The principal; for a command on Redis itself, the user and the host. Empty: it is not known."""
    via: Via
    action: str
    """Such as `cancel` or `revoke`."""
    target: str
    """What it was done to, such as an operation's id."""
    result: str = "ok"
    """`ok`, or the code of the error."""
    address: str = ""
    """The client's address."""
    request: str = ""
    """The id of the request."""
    detail: str = ""


class Audit:
    """Records who changed what: as a line of the log and, within `stored_in`, in Redis."""

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally or Tally()
        self._store: Store | None = None
        self._waiting: deque[AuditEntry] = deque()
        self._writing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def stored_in(self, store: Store) -> AsyncIterator[None]:
        """Store entries in this Redis, too. At the end, wait a moment for those that are not stored yet."""
        self._store = store
        try:
            yield
        finally:
            await self._written()
            self._store = None
            if self._writing is not None:
                self._writing.cancel()

    async def record(self, entry: AuditEntry) -> None:
        """Record an action that was done or rejected. It never raises, so that no action fails by its record.

        An action waits up to half a second until Redis has its entry; a creation, of which there may be many, does not.
        """
        fields = {name: value for name, value in entry._asdict().items() if value}
        log.info(
            "%s by %s: %s %s",
            entry.action,
            entry.who or "somebody",
            entry.target or "everything",
            entry.result,
            extra=fields,
        )
        if self._store is None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._tally.audit_lost += 1
            return
        self._waiting.append(entry)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(self._store))
        if entry.action != CREATE:
            await self._written()

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.wait((self._writing,), timeout=PATIENCE_S)

    async def _write(self, store: Store) -> None:
        """Store what waits, together as far as it came meanwhile."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
            try:
                await _store(store, batch)
            except Exception as error:  # whatever it is, the actions were done, and the log has them
                self._tally.audit_lost += len(batch)
                log.warning(
                    "Redis did not store %d entries of the audit; the log has them: %s",
                    len(batch),
                    error.detail if isinstance(error, BrokerError) else repr(error),
                    extra={"entries": len(batch)},
                )


async def record_once(store: Store, entry: AuditEntry) -> None:
    """Record one action of a command that works in Redis itself."""
    audit = Audit()
    async with audit.stored_in(store):
        await audit.record(entry)


async def _store(store: Store, entries: Sequence[AuditEntry]) -> None:
    changes, creates = audit_keys(store.keyspace.prefix)
    async with store.connections.commands.pipeline(transaction=False) as redis:
        for entry in entries:
            fields = {name: str(value)[:LONGEST] for name, value in entry._asdict().items() if value}
            redis.xadd(creates if entry.action == CREATE else changes, fields, maxlen=LENGTH, approximate=True)
        with storage_errors():
            await redis.execute()


# Reading


class AuditRecord(BaseModel):
    """An entry as it was stored."""

    time: Time
    """When it was stored, by Redis' clock."""
    who: str = ""
    via: str = ""
    action: str = ""
    target: str = ""
    result: str = ""
    address: str = ""
    request: str = ""
    detail: str = ""


class AuditPage(BaseModel):
    """A page of the audit, newest first."""

    entries: list[AuditRecord]
    next_cursor: str | None


class AuditFilter(BaseModel):
    """Which entries to read. None matches all."""

    action: str | None = None
    who: str | None = None
    target: str | None = None
    result: str | None = None
    since_ms: int | None = None

    def matches(self, record: AuditRecord) -> bool:
        """Return whether an entry matches, apart from its time."""
        wanted = ((self.action, record.action), (self.who, record.who), (self.target, record.target))
        return all(value is None or value == found for value, found in (*wanted, (self.result, record.result)))


async def read_audit(store: Store, wanted: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
    """Return a page of the entries that match, newest first. Raises `InvalidInput` for a cursor that is none."""
    keys = audit_keys(store.keyspace.prefix)
    positions = [_NEWEST, _NEWEST] if cursor is None else _positions(cursor)
    found: list[tuple[tuple[int, int], int, AuditRecord]] = []

    for at, key in enumerate(keys):
        if wanted.action is not None and (wanted.action == CREATE) is not (at == 1):
            continue
        matching = _matching(store, key, wanted, limit + 1, positions[at])
        found += [(_order(id), at, record) async for id, record in matching]
    found.sort(key=lambda it: it[:2], reverse=True)
    more = len(found) > limit
    for order, at, _ in found[:limit]:
        positions[at] = f"({order[0]}-{order[1]}"
    return AuditPage(
        entries=[record for _, _, record in found[:limit]], next_cursor=_cursor(positions) if more else None
    )


async def _matching(
    store: Store, key: str, wanted: AuditFilter, limit: int, newest: str
) -> AsyncIterator[tuple[str, AuditRecord]]:
    """Yield up to `limit` entries of a stream that match, newest first."""
    oldest = "-" if wanted.since_ms is None else str(wanted.since_ms)
    count = 0
    while newest:
        with storage_errors():
            entries: Any = await store.connections.commands.xrevrange(key, newest, oldest, count=_PAGE)
        for id, pairs in entries:
            record = _read(id.decode(), pairs)
            if wanted.matches(record):
                yield id.decode(), record
                count += 1
                if count == limit:
                    return
        newest = f"({entries[-1][0].decode()}" if len(entries) == _PAGE else ""


def _read(id: str, pairs: Sequence[bytes]) -> AuditRecord:
    words = [word.decode("utf-8", "replace") for word in pairs]
    texts = {name: text for name, text in zip(words[::2], words[1::2], strict=False) if name in AuditEntry._fields}
    return AuditRecord(time=datetime.fromtimestamp(_order(id)[0] / 1000, UTC), **texts)


def _order(id: str) -> tuple[int, int]:
    ms, _, seq = id.partition("-")
    return int(ms), int(seq)


def _cursor(positions: Sequence[str]) -> str:
    return "~".join(position.removeprefix("(") for position in positions)


def _positions(cursor: str) -> list[str]:
    parts = cursor.split("~")
    if len(parts) != 2 or not all(part == _NEWEST or _is_id(part) for part in parts):
        raise InvalidInput(f"{cursor[:60]!r} is no cursor of this call: send `next_cursor` as it was", field="cursor")
    return [part if part == _NEWEST else f"({part}" for part in parts]


def _is_id(text: str) -> bool:
    ms, hyphen, seq = text.partition("-")
    return bool(hyphen) and all(part.isascii() and part.isdecimal() and len(part) <= 20 for part in (ms, seq))
