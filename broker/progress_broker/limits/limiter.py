"""The limiter: each caller's requests, bytes and streams, at this replica and, through Redis, at all replicas.

Rate limits use buckets in this process, which are synchronized through Redis a few times a second. So no request waits
for Redis. Only a new stream of a principal asks Redis first, because streams are long-lived. While Redis is unavailable
or slow, this replica applies the same limits alone: callers are not locked out, and they are still limited. Of several
servers, each has some of the callers: while it is away, these are limited by this replica alone.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable, TooManyStreams
from progress_broker.limits.gcra import Buckets, Rate, SpendReport
from progress_broker.limits.policy import Limits
from progress_broker.limits.slots import RETRY_AFTER_S, Slot, Slots
from progress_broker.limits.stream_leases import LeaseReport, StreamLeases
from progress_broker.nodes.calls import Call
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tasks import Tasks
from progress_broker.settings import Settings
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import by_node

log = logging.getLogger(__name__)

SETTLE_S = 0.25
"""How often replicas synchronize. Until then, a caller may spend its full limit at each replica."""
TIMEOUT_S = 0.5
"""How long Redis may take to answer before this replica applies the limits alone."""
RETRY_S = 1.0
"""How often Redis is asked again then."""
_FORGET_S = 10.0
_TOGETHER = 500  # calls per pipeline
_AWAY = (StorageUnavailable, StorageFull, TimeoutError, redis.exceptions.RedisError)


Node = tuple[int, ...]
"""A server, named by its lanes."""


class Report(Protocol):
    """A report to Redis about one caller. It may fail and is then sent again."""

    def call(self, keyspace: Keyspace) -> Call:
        """Return the call that reports it."""

    def replied(self, reply: Any, now: float) -> None:
        """Store what Redis replied to the report."""

    def failed(self, now: float) -> None:
        """Keep what was reported, so that a later report contains it."""


class OwnLimits(NamedTuple):
    """The limits of one principal, as far as they differ from those of the settings."""

    has_requests: bool
    requests: Rate | None
    has_sent: bool
    sent: Rate | None
    streams: int | None
    """None: as for all."""


def _with_rates(buckets: Buckets | None, rate: Rate | None, own: Mapping[str, Rate | None]) -> Buckets | None:
    """Return the buckets for these rates; None if nobody has one."""
    if rate is None and not any(own.values()):
        return None
    buckets = buckets or Buckets(rate)
    buckets.rate, buckets.own = rate, own
    return buckets


class Limiter:
    """Applies the limits. Without `shared` they count for one replica; within `shared`, for all replicas of a Redis."""

    def __init__(
        self,
        settings: Settings,
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
        *,
        authenticated: bool = False,
    ) -> None:
        self.limits = Limits.of(settings, authenticated=authenticated)
        self.requests = Buckets(self.limits.requests) if self.limits.requests else None
        self.sent = Buckets(self.limits.sent) if self.limits.sent else None
        self.slots = Slots(self.limits, tally)
        self.clock = clock
        self._leases = StreamLeases(settings.stream_lease_s)
        self._tally = tally
        self._store: Store | None = None
        self._alone: set[Node] = set()
        """The servers that do not answer."""
        self._forget_at = 0.0
        self._authenticated = authenticated
        self._own: Mapping[str, OwnLimits] = {}
        self._settling: Tasks | None = None

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Return what takes the limits of new settings. What callers have spent, and their streams, still count."""
        return lambda: self._take(Limits.of(settings, authenticated=self._authenticated))

    def _take(self, limits: Limits) -> None:
        self.limits = self.slots.limits = limits
        self._apply()

    def take_own(self, own: Mapping[str, OwnLimits]) -> None:
        """Apply limits of single principals, by name, in place of those that they had before."""
        self._own = own
        self._apply()

    def _apply(self) -> None:
        requests = {f"={name}": limits.requests for name, limits in self._own.items() if limits.has_requests}
        sent = {f"={name}": limits.sent for name, limits in self._own.items() if limits.has_sent}
        self.requests = _with_rates(self.requests, self.limits.requests, requests)
        self.sent = _with_rates(self.sent, self.limits.sent, sent)
        self._begin_settling()

    def most_streams(self, principal: str) -> int:
        """Return how many streams a principal may have; 0 is no limit."""
        own = self._own.get(principal) if self._own else None
        return self.limits.streams_per_principal if own is None or own.streams is None else own.streams

    def _begin_settling(self) -> None:
        tasks = self._settling
        any_limit = self.requests or self.sent or self.limits.streams_per_principal or self._own
        if tasks is not None and not len(tasks) and any_limit:
            tasks.keep_running(self._keep_settled)

    @asynccontextmanager
    async def shared(self, store: Store) -> AsyncIterator[None]:
        """Share the limits with all replicas of this Redis; at the end, release what this replica holds."""
        self._store = store
        self._settling = tasks = Tasks()
        self._begin_settling()
        try:
            yield
        finally:
            self._settling = None
            await tasks.close()
            if not self._all_alone:
                await self.settle()
            self._store = None

    # Streams

    def address_slot(self, address: str) -> Slot:
        """Reserve a stream for an address, before the caller is known; raise `AtCapacity` or `TooManyStreams`."""
        return self.slots.take(address)

    async def stream_slot(self, principal: str, address: str, address_slot: Slot | None = None) -> Slot:
        """Reserve a stream for a principal and its address; raise `AtCapacity` or `TooManyStreams`.

        An unauthenticated caller has an empty principal, and is limited by its address only. `address_slot` is a
        reservation that was made before the caller was known; it becomes the result.
        """
        slot = address_slot or self.address_slot(address)
        if principal and self.most_streams(principal):
            try:
                await self._lease(principal)
            except BaseException:
                slot.release()
                raise
            slot.lease(self._leases, principal)
        return slot

    async def _lease(self, principal: str) -> None:
        limit = self.most_streams(principal)
        allowed = self._leases.add(principal) <= limit
        try:
            report = LeaseReport(self._leases, principal, limit)
            if allowed and self._store is not None and not self._is_alone(report):
                allowed = await self._ask(report)
            elif allowed:
                self._leases.change(principal)
        except BaseException:
            self._leases.remove(principal)
            raise
        if not allowed:
            self._leases.remove(principal)
            self._tally.limited["streams"] += 1
            raise TooManyStreams(
                f"you have {limit} streams open, which is the maximum per principal (max_streams_per_principal):"
                " close one, or follow many operations with one stream",
                retry_s=RETRY_AFTER_S,
            )

    async def _ask(self, report: LeaseReport) -> bool:
        [(node, reports)] = self._by_node([report]).items()
        replies = await self._send(node, reports)
        if replies is None:  # without Redis, the count of this replica decides
            return True
        [(allowed, _)] = replies
        return bool(allowed)

    # Synchronization with the other replicas

    async def settle(self) -> None:
        """Report to Redis what was spent and is held here, and read the totals of all replicas."""
        due, now = list(self._due()), self.clock()
        await asyncio.gather(*(self._settle(node, reports) for node, reports in self._by_node(due).items()))
        for node in self._alone - self._nodes():  # it serves nothing any more
            self._limit_together(node)
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_S
            for buckets in filter(None, (self.requests, self.sent)):
                buckets.forget_full(now)

    async def _settle(self, node: Node, due: Sequence[Report]) -> None:
        for at in range(0, len(due), _TOGETHER):
            if await self._send(node, due[at : at + _TOGETHER]) is None:
                for report in due[at + _TOGETHER :]:
                    report.failed(self.clock())
                return

    async def _keep_settled(self) -> None:
        while True:
            await asyncio.sleep(RETRY_S if self._all_alone else SETTLE_S)
            await self.settle()

    def _by_node(self, reports: Sequence[Report]) -> dict[Node, list[Report]]:
        """Divide reports by the server that has their callers."""
        assert self._store is not None  # noqa: S101 - only called within `shared`
        keyspace, of_key = self._store.keyspace, dict[str, list[Report]]()
        for report in reports:
            of_key.setdefault(report.call(keyspace).keys[0], []).append(report)
        divided = by_node(self._store.connections, keyspace, of_key)
        return {node: [report for key in keys for report in of_key[key]] for node, keys in divided.items() if keys}

    def _nodes(self) -> set[Node]:
        assert self._store is not None  # noqa: S101 - only called within `shared`
        return by_node(self._store.connections, self._store.keyspace, ()).keys() | set()

    def _is_alone(self, report: Report) -> bool:
        """Whether the server that has a report's caller does not answer."""
        return bool(self._alone) and not self._alone.isdisjoint(self._by_node([report]))

    @property
    def _all_alone(self) -> bool:
        return bool(self._alone) and self._nodes() <= self._alone

    def _due(self) -> Iterator[Report]:
        if self.requests is not None:
            for caller, bucket in self.requests.unsettled().items():
                yield SpendReport(self.requests, "requests", caller, bucket)
        if self.sent is not None:
            for caller, bucket in self.sent.unsettled().items():
                yield SpendReport(self.sent, "sent", caller, bucket)
        for name in self._leases.due(self.clock()):
            yield LeaseReport(self._leases, name)

    async def _send(self, node: Node, reports: Sequence[Report]) -> list[Any] | None:
        """Return the replies of a server; or None if it does not answer: then this replica applies the limits alone."""
        assert self._store is not None  # noqa: S101 - only called within `shared`
        keyspace = self._store.keyspace
        try:
            async with asyncio.timeout(TIMEOUT_S):
                replies = await self._replies([report.call(keyspace) for report in reports])
        except BaseException as error:
            for report in reports:
                report.failed(self.clock())
            if not isinstance(error, _AWAY):
                raise
            self._limit_alone(node, error)
            return None
        for report, reply in zip(reports, replies, strict=True):
            report.replied(reply, self.clock())
        self._limit_together(node)
        return replies

    async def _replies(self, calls: Sequence[Call]) -> list[Any]:
        assert self._store is not None  # noqa: S101 - see `_send`
        scripts = self._store.connections.scripts
        if len(calls) == 1:  # a pipeline costs a third more
            return [await scripts.run(calls[0])]
        return await scripts.run_all(calls)

    def _limit_alone(self, node: Node, error: BaseException) -> None:
        if not self._alone:
            self._tally.limiter_mode_changes["alone"] += 1
            why = str(error) or type(error).__name__
            log.warning(
                "Redis did not answer, so this replica applies the limits to its own streams and requests only: %s",
                why,
                extra={"error": why},
            )
        self._alone.add(node)

    def _limit_together(self, node: Node) -> None:
        if node in self._alone:
            self._alone.discard(node)
            self._leases.all_due()
            if not self._alone:
                self._tally.limiter_mode_changes["together"] += 1
                log.info("Redis answers again, so all replicas share the limits again")
