"""Reads from Redis for channels. Subscriptions share each read, and it is retried until Redis answers."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from progress_broker.errors import Gone, NotFound, StorageUnavailable, Unreadable
from progress_broker.history import event_log
from progress_broker.history.losses import Lost
from progress_broker.live.channel import Channel
from progress_broker.model.event import LastEvent
from progress_broker.model.operation import Operation
from progress_broker.operations.store import Store
from progress_broker.runtime.backoff import until_back
from progress_broker.runtime.tasks import Tasks
from progress_broker.storage.foreign import warn_once
from progress_broker.stream.batching import bookmark_every

log = logging.getLogger(__name__)

_LOADS = 3  # a load may be followed by another one at once, if events were missed during it

T = TypeVar("T")


class ChannelLoader:
    """Reads operations and their logs for channels (`history.Loader`)."""

    def __init__(self, store: Store, tasks: Tasks, on_empty: Callable[[Channel], None]) -> None:
        self._store = store
        self._settings = store.settings
        self._tasks = tasks
        self._on_empty = on_empty
        self._loads: dict[bytes, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._loads)

    def load(self, channel: Channel) -> None:
        """Read the newest events of a channel's log."""
        length = self._settings.ring_length

        async def read() -> None:
            with_length = channel.is_filtered
            found = await self._until_answered(
                channel, lambda: event_log.tail(self._store, channel.operation, length, with_length=with_length)
            )
            if found is not None:
                _set_bookmarks(channel, found.history_length)
                channel.loaded_with(found.events)
                if channel.is_filtered and not with_length:
                    self.history_length(channel)

        task = self._read_for(channel, read())
        self._loads[channel.name] = task
        task.add_done_callback(lambda done: self._load_done(channel, done))

    def history_length(self, channel: Channel) -> None:
        """Read how many events are kept of an operation."""

        async def read() -> None:
            found = await self._until_answered(
                channel, lambda: event_log.tail(self._store, channel.operation, 1, with_length=True)
            )
            if found is not None:
                _set_bookmarks(channel, found.history_length)

        self._read_for(channel, read())

    async def loading(self, channel: Channel, timeout_s: float) -> None:
        """Wait for a channel's load in progress, if there is one."""
        load = self._loads.get(channel.name)
        if load is not None:
            await asyncio.wait({load}, timeout=timeout_s)

    async def until_loaded(self, channel: Channel, timeout_s: float) -> None:
        """Wait for a channel's recent frames, so that clients that connect at the same time share one read.

        Raises `StorageUnavailable` if they are not read within `timeout_s`.
        """
        for _ in range(_LOADS):
            if not channel.loaded:
                await self.loading(channel, timeout_s)
        if not channel.loaded:
            raise StorageUnavailable(f"Redis did not answer within {timeout_s:g} s: retry in a moment")

    def page(self, channel: Channel, position: bytes) -> None:
        """Read a channel's log after a position."""
        at, length = position.decode(), self._page_length(channel)

        async def read() -> None:
            page = await self._until_answered(
                channel, lambda: event_log.after(self._store, channel.operation, at, length)
            )
            if page is not None:
                channel.page_read(position, page.events, page.reset)

        self._read_for(channel, read())

    def _page_length(self, channel: Channel) -> int:
        """Return how many events to read. Events that do not fit in a client's buffer would be read again."""
        settings, typical = self._settings, channel.typical_bytes()
        room = 2 * settings.client_buffer_bytes // typical if typical else settings.page_length
        return max(2, min(settings.page_length, room))

    def snapshot(self, channel: Channel, lost: Lost | None) -> None:
        """Read the last event that is shared with whoever has lost a position, and the operation's snapshot."""

        async def found() -> tuple[LastEvent | None, Operation]:
            # The state is read last, so that it is not older than the event.
            shared = None if lost is None else await event_log.last_shared(self._store, channel.operation, lost)
            return shared, await self._get(channel)

        async def read() -> None:
            answer = await self._until_answered(channel, found)
            if answer is not None:
                shared, operation = answer
                channel.snapshot_read(lost, operation, shared)

        self._read_for(channel, read())

    async def _get(self, channel: Channel) -> Operation:
        while True:
            standing = channel.standing
            try:
                return await self._store.get(channel.operation)
            except (NotFound, Gone):
                if channel.standing == standing:
                    raise  # else a new operation may have its id since

    def empty(self, channel: Channel) -> None:
        """Report that a channel has no subscriptions any more."""
        self._on_empty(channel)

    def _load_done(self, channel: Channel, task: "asyncio.Task[None]") -> None:
        if self._loads.get(channel.name) is task:
            del self._loads[channel.name]

    async def _until_answered(self, channel: Channel, read: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Return the result of a read; retry until Redis answers. Return None if nobody waits for it any more."""
        return await until_back(read, wanted=lambda: channel.subscriptions)

    def _read_for(self, channel: Channel, read: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a read. If it fails permanently, disconnect the channel's clients, or they would wait forever."""

        async def guarded() -> None:
            try:
                await read
            except Unreadable as error:
                warn_once(f"operation {channel.operation} can't be read; its clients are disconnected", error.detail)
                channel.close("storage-unavailable")
            except (NotFound, Gone):
                channel.close("gone")
            except Exception:
                log.exception("reading operation %s failed; its clients are disconnected", channel.operation)
                channel.close("storage-unavailable")

        return self._tasks.spawn(guarded())


def _set_bookmarks(channel: Channel, history_length: int | None) -> None:
    if history_length is not None:
        channel.bookmark_every = bookmark_every(history_length)
