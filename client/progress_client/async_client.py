"""The client for coroutines. `Client` is the same for other programs."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Self

import orjson

from progress_broker.errors import InvalidInput, NotFound
from progress_broker.model.entry import encode, encode_data
from progress_broker.model.metadata import terms
from progress_broker.model.operation import (
    EVENT_TYPE,
    NewOperation,
    NewSignal,
    Operation,
    PublishResult,
    Status,
    is_id,
)
from progress_broker.model.position import parse as parse_position
from progress_broker.model.validation import check_arguments, texts, validated
from progress_broker.queries.filters import Filters
from progress_broker.settings import Settings, load_settings
from progress_client.address import server_url
from progress_client.backend import FROM_START, OTHER_LOOP, Backend
from progress_client.events import End, Event, Reset, Snapshot
from progress_client.opened import Call, Opened
from progress_client.watching import watch

PATIENCE_S = 60.0
"""How long `watch` tries to reach a server or a Redis that does not answer."""
MAX_TYPES = 32
PAGE = 50


class AsyncClient:
    """Reads and changes operations, over HTTP or in Redis. It belongs to one event loop at a time.

    Without arguments the environment says where the operations are: `PROGRESS_URL` with `PROGRESS_TOKEN`, or
    `PROGRESS_REDIS_URL`; without either, it is the private Redis of a server on this machine. Nothing is sent before
    the first call. `patience_s` is how long `watch` and `wait` go on trying while nothing answers; None: for ever.

    Every method raises a `BrokerError` if it fails. Among them are `NotFound`, `Gone`, `Unauthenticated`, `Forbidden`,
    and `StorageUnavailable`: Redis does not answer, or the server does not (`ServerUnavailable`).
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        token_file: str | None = None,
        redis_url: str | None = None,
        settings: Settings | None = None,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        check_arguments(patience_s=patience_s)
        if not isinstance(settings, Settings | None):
            kind = type(settings).__name__
            raise InvalidInput(f"settings: expected `Settings`, or None, not a value of type {kind}", field="settings")
        self.settings = settings or load_settings(url=url, token=token, token_file=token_file, redis_url=redis_url)
        server_url(self.settings)  # both addresses are an error that is told now
        self._patience_s = patience_s
        self._opened: Opened | None = None

    async def get(self, id: str, *, list_children: bool = False) -> Operation:
        """Return an operation as it is now; with `list_children`, also the first of its children."""
        _check(id, list_children=list_children)
        return await self._open().ask(lambda backend: backend.get(id, list_children=list_children))

    async def list(
        self,
        *,
        status: Status | str | Iterable[Status | str] | None = None,
        owner: str | None = None,
        kind: str | None = None,
        tag: str | Iterable[str] | None = None,
        parent: str | None = None,
        metadata: Mapping[str, str | float] | None = None,
        page_size: int = PAGE,
    ) -> AsyncGenerator[Operation]:
        """Yield the operations that match, the most recently changed first; pages of `page_size`
        (200 at most) are read as they are needed.

        Of several statuses any may match; of several tags, and of `metadata`, all have to.
        """
        check_arguments(owner=owner, kind=kind, parent=parent, metadata=metadata, page_size=page_size)
        filters = Filters(
            statuses=frozenset(_status(it) for it in texts("status", status)),
            owners=texts("owner", owner),
            kinds=texts("kind", kind),
            tags=texts("tag", tag),
            parent=parent,
            metadata=_terms(metadata),
        )
        cursor: str | None = None
        while True:
            page, cursor = await self._open().ask(lambda backend, at=cursor: backend.find(filters, page_size, at))  # type: ignore[misc]
            for operation in page:
                yield operation
            if cursor is None:
                return

    async def watch(
        self, id: str, *, after: str | None = None, types: Iterable[str] | None = None
    ) -> AsyncGenerator[Event]:
        """Yield what happens to an operation, as it happens, up to its `End`.

        It begins with a `Snapshot` of the operation; with `after`, with what followed that position instead, which is
        the `position` of an event, or `start` for all that is kept. Whatever comes between - a cut connection, a server
        or a Redis that restarts - it goes on after the last event, and yields each event once. If events were lost, it
        yields a `Reset`. With `types`, only events of these types are yielded, and `Snapshot`, `Reset` and `End`.

        Raises `NotFound` or `Gone` also if the operation is deleted meanwhile. If nothing answers for `patience_s`,
        raises the last error.
        """
        _check(id, after=after)
        if after is not None and after != FROM_START:
            parse_position(after)
        opened = self._open()
        following = watch(opened.reach, id, after, _types(types), self._patience_s)
        async with aclosing(following):
            while True:
                with Call(opened):
                    event = await anext(following, None)
                if event is None:
                    return
                yield event

    async def wait(self, id: str, timeout: float | None = None) -> Operation:
        """Return the operation once it has ended. Raises `TimeoutError` if it has not within `timeout` seconds.

        With a timeout of 0 it is asked for once, and may have ended before.
        """
        _check(id, timeout=timeout)
        state: Operation | None = None
        if timeout is not None and timeout <= 0:
            state = await self.get(id)
            if state.done:
                return state
            raise TimeoutError(f"{state!r} has not ended")
        try:
            async with asyncio.timeout(timeout):
                async for event in self.watch(id, types=()):
                    if isinstance(event, Snapshot | Reset):
                        state = event.state
                    if isinstance(event, End):
                        break
                return await self.get(id)
        except TimeoutError:
            shown = f"operation {id}" if state is None else repr(state)
            raise TimeoutError(f"{shown} has not ended within {timeout:g} s") from None

    async def cancel(
        self, id: str, reason: str | None = None, *, by: str | None = None, force: bool = False
    ) -> Operation:
        """Ask the worker of an operation, and those of its children, to stop; return the operation as it is then.

        An operation that no worker has started ends at once. With `force` every operation does. A server that knows its
        caller ignores `by`. Raises `InvalidInput` if the reason has more than 1,024 characters.
        """
        _check(id, reason=reason, by=by, force=force)
        return await self._open().ask(lambda backend: backend.cancel(id, reason=reason, by=by, force=force))

    async def signal(self, id: str, type: str, data: Any = None, *, by: str | None = None) -> None:
        """Send a signal, such as `pause`, to an operation's worker, which decides what to do with it."""
        _check(id, by=by)
        sent = validated(NewSignal, {"type": type, "data": orjson.loads(encode_data("signal", data, self.settings))})
        await self._open().ask(lambda backend: backend.signal(id, sent, by=by))

    async def create(self, kind: str = "operation", **options: Any) -> Operation:
        """Create an operation for a worker that is not the SDK's. `options` are the fields of `NewOperation`."""
        new = validated(NewOperation, {"kind": kind, **options})
        return await self._open().ask(lambda backend: backend.create(new))

    async def publish(self, id: str, type: str, data: Any = None) -> PublishResult:
        """Publish one event of an operation, as its worker: a `progress`, `log`, `end`, or one of your own types."""
        _check(id, type=type)
        entry = encode(type, data, self.settings)
        return await self._open().ask(lambda backend: backend.publish(id, [entry]))

    async def now(self) -> datetime:
        """Return the time by the clock that the times of operations are by."""
        return await self._open().ask(lambda backend: backend.now())

    async def backend(self) -> Backend:
        """Return what the calls go to. It is for the command line."""
        return await self._open().reach()

    async def close(self) -> None:
        """Close the connections. Iterators and calls that are still open fail with `RuntimeError`."""
        opened = None if self._opened is None else self._open()
        self._opened = None
        if opened is not None:
            await opened.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _open(self) -> Opened:
        loop = asyncio.get_running_loop()
        if self._opened is not None and self._opened.loop is not loop:
            if not self._opened.loop.is_closed():
                raise RuntimeError(OTHER_LOOP)
            self._opened = None
        if self._opened is None:
            self._opened = Opened(self.settings)
        return self._opened


def _check(id: str, **given: object) -> None:
    """Check the arguments of a call for an operation, before anything is sent."""
    check_arguments(id=id, **given)
    if not is_id(id):
        raise NotFound(
            f"there is no operation {id[:128]!r}: that is not a valid id, which has up to 128 of A-Z, a-z, 0-9, . _ ~ -"
        )


def _status(name: str) -> Status:
    try:
        return Status(name)
    except ValueError:
        known = ", ".join(Status)
        raise InvalidInput(f"{name!r} is not a status: use one of {known}", field="status") from None


def _terms(metadata: Mapping[str, str | float] | None) -> tuple[str, ...]:
    try:
        return tuple(term for key, value in (metadata or {}).items() for term in terms(key, [value]))
    except ValueError as error:
        raise InvalidInput(str(error), field="metadata") from None


def _types(given: Iterable[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    types = frozenset(texts("types", given))
    bad = [name for name in sorted(types) if re.fullmatch(EVENT_TYPE, name) is None]
    if bad or len(types) > MAX_TYPES:
        wrong = f"{bad[0]!r} is not an event type" if bad else f"at most {MAX_TYPES} types can be chosen"
        raise InvalidInput(f"types: {wrong}", field="types")
    return types | {"end"}
