"""The limiter: what callers have spent and hold at this replica, and, through Redis, at all of them.

Redis is never in the way. Rates are kept in buckets of our own and settled with the others a few times a second, so no
request waits for it. Only a stream of a principal asks first, as it stays. While Redis is away, or slow, this replica
keeps the same limits alone: nobody is locked out, and nobody is let in without end.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable, TooManyStreams
from progress_broker.limits.gcra import Buckets, Charge
from progress_broker.limits.policy import Limits
from progress_broker.limits.slots import COME_BACK_S, Place, Places
from progress_broker.limits.stream_leases import StreamLeases, Word
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tasks import Tasks
from progress_broker.settings import Settings
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.run import run, run_all
from progress_broker.storage.scripts import Call

log = logging.getLogger(__name__)

SETTLE_S = 0.25
"""How often replicas settle. So long, a caller may spend at each as if it were the only one."""
PATIENCE_S = 0.5
"""How long Redis may take to answer before limits are kept without it."""
RETRY_S = 1.0
"""How often it is asked again then."""
_FORGET_S = 10.0
_TOGETHER = 500  # calls in a pipeline
_AWAY = (StorageUnavailable, StorageFull, TimeoutError, redis.exceptions.RedisError)


class Settlement(Protocol):
    """What a replica tells the others of one caller: a call that may fail."""

    def call(self, keyspace: Keyspace) -> Call:
        """Return what to say."""

    def replied(self, reply: Any, now: float) -> None:
        """Take the answer."""

    def failed(self, now: float) -> None:
        """Have it said again."""


class Limiter:
    """Says who may do how much. By itself it speaks for one replica, within `shared` for all that share a Redis."""

    def __init__(self, settings: Settings, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = Limits.of(settings)
        self.requests = Buckets(self.limits.requests) if self.limits.requests else None
        self.sent = Buckets(self.limits.sent) if self.limits.sent else None
        self.places = Places(self.limits, tally)
        self.clock = clock
        self._leases = StreamLeases(settings.stream_lease_s)
        self._tally = tally
        self._store: Store | None = None
        self._alone = False
        self._forget_at = 0.0

    @asynccontextmanager
    async def shared(self, store: Store) -> AsyncIterator[None]:
        """Keep the limits together with all replicas of this Redis; at the end tell them what we hold no more."""
        self._store = store
        tasks = Tasks()
        if self.requests or self.sent or self.limits.streams_per_principal:
            tasks.keep_up(self._keep_settled)
        try:
            yield
        finally:
            await tasks.close()
            if not self._alone:
                await self.settle()
            self._store = None

    # Streams

    def room(self, address: str) -> Place:
        """Return a place for a stream of whoever it is; raise `AtCapacity` or `TooManyStreams`."""
        self.places.take(address)
        return Place(lambda: self.places.leave(address))

    async def place(self, principal: str, address: str, room: Place | None = None) -> Place:
        """Return a place for a stream; raise `AtCapacity` or `TooManyStreams`. Who has no name has only an address.

        It may have been given `room` before it was known who it is, which is given back with the place.
        """
        room = room or self.room(address)
        leased = bool(principal and self.limits.streams_per_principal)
        try:
            if leased:
                await self._lease(principal)
        except BaseException:
            room.give_back()
            raise

        def give_back() -> None:
            room.give_back()
            if leased:
                self._leases.remove(principal)

        return Place(give_back)

    async def _lease(self, principal: str) -> None:
        limit = self.limits.streams_per_principal
        allowed = self._leases.add(principal) <= limit
        try:
            if allowed and self._store is not None and not self._alone:
                allowed = await self._ask(Word(self._leases, principal, limit))
            elif allowed:
                self._leases.change(principal)
        except BaseException:
            self._leases.remove(principal)
            raise
        if not allowed:
            self._leases.remove(principal)
            self._tally.limited["streams"] += 1
            raise TooManyStreams(
                f"you have {limit} streams open, as many as may be: close one, or follow many operations with one",
                retry_s=COME_BACK_S,
            )

    async def _ask(self, word: Word) -> bool:
        replies = await self._tell([word])
        if replies is None:  # what we know ourselves has to do
            return True
        [(is_so, _)] = replies
        return bool(is_so)

    # Settling with the others

    async def settle(self) -> None:
        """Tell the others what was spent and is held here, and hear what that makes in all."""
        due, now = list(self._due()), self.clock()
        for at in range(0, len(due), _TOGETHER):
            if await self._tell(due[at : at + _TOGETHER]) is None:
                for one in due[at + _TOGETHER :]:
                    one.failed(now)
                return
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_S
            for buckets in filter(None, (self.requests, self.sent)):
                buckets.forget_full(now)

    async def _keep_settled(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S if self._alone else SETTLE_S)
            await self.settle()

    def _due(self) -> Iterator[Settlement]:
        if self.requests is not None:
            for who, bucket in self.requests.unsettled().items():
                yield Charge(self.requests, "requests", who, bucket)
        if self.sent is not None:
            for who, bucket in self.sent.unsettled().items():
                yield Charge(self.sent, "sent", who, bucket)
        for name in self._leases.due(self.clock()):
            yield Word(self._leases, name)

    async def _tell(self, settlements: Sequence[Settlement]) -> list[Any] | None:
        """Return the replies; or None if Redis does not answer, and then we go on alone."""
        assert self._store is not None  # noqa: S101 - there are no others outside of `shared`
        keyspace = self._store.keyspace
        try:
            async with asyncio.timeout(PATIENCE_S):
                replies = await self._replies([one.call(keyspace) for one in settlements])
        except BaseException as error:
            for one in settlements:
                one.failed(self.clock())
            if not isinstance(error, _AWAY):
                raise
            self._keep_alone(error)
            return None
        for one, reply in zip(settlements, replies, strict=True):
            one.replied(reply, self.clock())
        self._keep_together()
        return replies

    async def _replies(self, calls: Sequence[Call]) -> list[Any]:
        assert self._store is not None  # noqa: S101 - see `_tell`
        commands = self._store.connections.commands
        if len(calls) == 1:  # a pipeline costs a third more
            return [await run(commands, calls[0])]
        return await run_all(commands, calls)

    def _keep_alone(self, error: BaseException) -> None:
        if not self._alone:
            self._alone = True
            self._tally.limits_kept["alone"] += 1
            why = str(error) or type(error).__name__
            log.warning("until Redis answers this replica keeps limits by itself: %s", why, extra={"error": why})

    def _keep_together(self) -> None:
        if self._alone:
            self._alone = False
            self._tally.limits_kept["together"] += 1
            self._leases.all_due()
            log.info("limits are kept together with all replicas again")
