"""Stores an operation in Redis where nobody sees it, and makes it visible as a whole."""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress

from progress_broker.errors import BrokerError, rejection
from progress_broker.model.event import PROGRESS
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.nodes.replicas import MOST_MS
from progress_broker.operations.commands import all_keys, check_rejection
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from progress_broker.storage.scripts import ADOPT, STAGE
from progress_broker.transfer.format import ExportedEvent

LASTS_MS = 600_000
"""How long what is stored lasts, if nothing more is added."""
_EVENTS, _BYTES = 100, 256 * 1024
"""About how much one call of Redis stores."""
_TURNS = 3
"""Turns of the event loop until a round trip has begun."""
_TOGETHER = 3
"""How many calls share a round trip. Redis runs them while the next events are read."""
_LOG, _KEPT, _CURVE = "2", "3", "4"  # keys of the script


class Staging:
    """An operation that is being stored. While a part is sent, the next one can be read.

    Two with one `name` are one after the other: the second one begins anew.
    """

    def __init__(self, store: Store, id: str, archived: int, name: str | None = None) -> None:
        self._store, self._id, self._archived = store, id, archived
        self._name = name or secrets.token_hex(8)
        self._keys = store.keyspace.staging(id)
        self._begun = False
        self._counts = {_LOG: 0, _KEPT: 0, _CURVE: 0}
        self._args: list[str | bytes] = []
        self._waiting = self._size = 0
        self._calls: list[Call] = []
        self._sending: asyncio.Task[None] | None = None

    async def add(self, events: Sequence[ExportedEvent]) -> None:
        """Store events, which follow those before. Raises `InvalidInput`, or `Conflict` beside another import."""
        for n, position, kind, data, producer, seq in events:
            key = _LOG if n > self._archived else _CURVE if kind == PROGRESS else _KEPT
            self._counts[key] += 1
            if producer:
                fields = (b"n", b"%d" % n, b"t", kind, b"d", data, b"p", producer, b"s", seq)
                self._args += ("EVENT", key, position, "10", *fields)
            else:
                self._args += ("EVENT", key, position, "6", b"n", b"%d" % n, b"t", kind, b"d", data)
            self._waiting += 1
            self._size += len(data)
            if self._waiting >= _EVENTS or self._size >= _BYTES:
                await self._send()

    async def sent(self) -> None:
        """Wait until what was sent is stored; raise what `add` raises."""
        if self._calls:
            await self._flush()
        await self._done()

    async def adopt(self, fields: Mapping[bytes, bytes], *, replace: bool, as_is_at: bytes | None = None) -> bool:
        """Make the operation visible; return whether it has replaced another one.

        With `as_is_at`, the last entry of its lane's feed, it is a copy: with all its fields, and nobody is told.

        Raises `OperationExists`, `Gone`, `Conflict` or `InvalidInput`; then nothing has changed.
        """
        if self._waiting or not self._begun:
            await self._send()
        await self.sent()
        counts = ("LOG", self._counts[_LOG], "KEPT", self._counts[_KEPT], "CURVE", self._counts[_CURVE])
        feed = ("FEED", str(self._store.settings.feed_length))
        args: list[str | bytes] = [self._id, self._name, *map(str, counts), *feed]
        if replace:
            args.append("REPLACE")
        if as_is_at is not None:
            args += ("AS_IS", "IF_FEED", as_is_at)
        args.append("FIELDS")
        for name, value in fields.items():
            args += (name, value)
        keys = (*all_keys(self._store.keyspace.operation(self._id)), *self._keys.all)
        reply, _ = await self._store.connections.scripts.durable(Call(ADOPT, keys, args), MOST_MS)
        check_rejection(reply)
        return bool(reply[1])

    async def drop(self) -> None:
        """Remove what was stored. What can't be removed now expires."""
        sending, self._sending = self._sending, None
        if sending is not None:
            await end(sending)
            if not sending.cancelled():
                sending.exception()  # it does not matter any more
        if self._begun:
            with suppress(BrokerError), storage_errors():
                if await self._store.connections.commands.get(self._keys.name) == self._name.encode():
                    await self._store.connections.commands.delete(*self._keys.all)

    async def _send(self) -> None:
        args: list[str | bytes] = [self._name, str(LASTS_MS)]
        if not self._begun:
            args.append("BEGIN")
        args += self._args
        self._args, self._waiting, self._size = [], 0, 0
        self._begun = True
        self._calls.append(Call(STAGE, self._keys.all, args))
        if len(self._calls) >= _TOGETHER:
            await self._flush()

    async def _flush(self) -> None:
        await self._done()
        calls, self._calls = self._calls, []
        self._sending = asyncio.create_task(self._run(calls))
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    async def _done(self) -> None:
        """Wait for what was sent; raise its error."""
        sending, self._sending = self._sending, None
        if sending is not None:
            await sending

    async def _run(self, calls: Sequence[Call]) -> None:
        # The queue encodes a call in C, which here takes less than half as long.
        for reply in await self._store.connections.queue.run_each(calls):
            if isinstance(reply, Exception):
                with storage_errors():
                    raise reply
            if reply[0] != b"ok":
                raise rejection(reply[0].decode(), reply[1].decode("utf-8", "replace"))
