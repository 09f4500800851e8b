"""A replica's bundles: opens them, adds new operations to them, and makes them send when the feed has moved on."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from progress_broker.bundle import cursor
from progress_broker.bundle.absent import AbsentLanes
from progress_broker.bundle.bundle import Admit, Bundle, anything
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.discovery import MissedSearch, TooManyEnded, begin, check_number, report_missing
from progress_broker.bundle.member import BundleMember
from progress_broker.bundle.placer import MemberPlacer
from progress_broker.bundle.query import OperationQuery, QueryIndex
from progress_broker.bundle.search import Search
from progress_broker.errors import Draining, Ended, StorageUnavailable
from progress_broker.live.feeds.batch import Batch
from progress_broker.model.event import CREATED, Event
from progress_broker.model.index_terms import IndexedOperation, read_terms
from progress_broker.model.position import order
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks
from progress_broker.runtime.timer_wheel import TimerWheel
from progress_broker.settings import Settings
from progress_broker.stream.delivery import ALL, Delivery, Start, StreamPolicy
from progress_broker.stream.registry import StreamRegistry
from progress_broker.stream.stream import Mode

log = logging.getLogger(__name__)


TOO_MANY_RESET = "too-many"
"""The reset reason if more operations ended during a client's absence than one stream may follow."""


class Bundles:
    """The hub's bundles. They can be opened once the hub has delivered its first batch."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        members: MemberPlacer,
        tasks: Tasks,
        wheel: TimerWheel,
        streams: StreamRegistry,
        policy: StreamPolicy,
        is_up_to_date: Callable[[int], bool],
    ) -> None:
        self.draining = False
        self.watermarks: dict[int, bytes] = {}
        """The position up to which each lane's feed has been delivered."""
        self.members = members
        self._settings = settings
        self._search = Search(store)
        self._missed = MissedSearch(self._search, tasks)
        self._absent = AbsentLanes(self._search, tasks, self._restarted)
        self.is_up_to_date = is_up_to_date
        """Whether a lane's feed is read, and all that it brought was delivered."""
        self._wheel, self._streams = wheel, streams
        self._policy = replace(policy, on_close=self._forget)
        self._lane_of_feed = {store.keyspace.lane(lane).feed.encode(): lane for lane in range(store.keyspace.lanes)}
        self._queries: QueryIndex[Bundle] = QueryIndex()
        self._bundles: set[Bundle] = set()
        self._dirty: set[Bundle] = set()
        self._waiting: set[Bundle] = set()
        self._flush_handle: asyncio.Handle | None = None
        self._losses = 0  # how often a feed has lost history

    def __len__(self) -> int:
        return len(self._bundles)

    def __iter__(self) -> Iterator[Bundle]:
        return iter(tuple(self._bundles))

    async def open(
        self,
        query: OperationQuery,
        start: Start,
        delivery: Delivery = ALL,
        *,
        admit: Admit = anything,
        wait: bool = False,
    ) -> Bundle:
        """Return a bundle at the start that its client wants; `attach` an outlet to it, or `close` it.

        Raises `NotFound` (unless `wait` is set) or `Gone` if none of the operations exists, `Ended` if nothing can
        follow the cursor, `InvalidInput` for an invalid cursor or too many operations, and `StorageUnavailable`.
        """
        try:
            bundle = await self._open(query, start, delivery, admit, wait=wait)
        except TooManyEnded:  # their ends are not sent: an operation that is missing in the new list has ended
            bundle = await self._open(query, Start(), delivery, admit, wait=wait)
            bundle.reset = TOO_MANY_RESET
            self._streams.reset(bundle, start, TOO_MANY_RESET)
        self._streams.opened(bundle, start)
        return bundle

    # What the hub calls

    def dispatch(self, events: Iterable[Event]) -> None:
        """Add operations that were created to the bundles whose query matches."""
        if not self._queries:
            return
        for event in events:
            if not event.n and event.type == CREATED:
                name, at = event.operation.decode(), event.position
                indexed = IndexedOperation(name, read_terms(event.data), False, at, at)
                for bundle in self._queries.followers(name, indexed.terms):
                    bundle.appeared(indexed, self._search.lane_of(name))

    def feed_advanced(self, positions: Mapping[bytes, bytes], batch: Batch) -> None:
        """Send what waited for the feed, because a batch has been delivered, and with it all up to these positions.

        In the batch's lanes to resync, new operations may have been missed.
        """
        self._losses += len(batch.lost)
        for feed, position in positions.items():
            self.watermarks[self._lane_of_feed[feed]] = position
        for lane in batch.resync:
            for bundle in self:
                if (bundle_lane := bundle.merge.lanes.get(lane)) is None:
                    if lane in bundle.merge.absent:
                        self._absent.begin(bundle, lane)
                    continue
                if (loss := batch.lost.get(lane)) is not None:
                    self._missed.search_again(bundle, bundle_lane, min(loss.shared, self.watermarks[lane], key=order))
                else:
                    self._missed.search(bundle, bundle_lane)
        self._flush()
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for bundle in waiting:
                self._run_guarded(bundle, bundle.feed_advanced)

    # What a bundle calls (`bundle.BundleHost`)

    def mark_dirty(self, bundle: Bundle) -> None:
        """Let a bundle send soon, together with everything else that arrives at this moment."""
        self._dirty.add(bundle)
        if self._flush_handle is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def place(self, bundle: Bundle, member: BundleMember, after: bytes | None, reset: str | None = None) -> None:
        """Start a member's subscription."""
        self.members.place(bundle, member, after, reset)

    # Internal

    async def _open(
        self, query: OperationQuery, start: Start, delivery: Delivery, admit: Admit, *, wait: bool
    ) -> Bundle:
        most = self._settings.max_operations_per_stream
        given = {} if start.position is None else cursor.parse(start.position, len(self._lane_of_feed))
        while True:  # until nothing has changed meanwhile
            away = self._away()
            # Asked before the bundle gets events: a new operation would start its lane at the feed's current position.
            lane_positions = await self._restarted({lane: at for lane, at in given.items() if lane not in away})
            if away == self._away():
                break
        if self.draining:
            raise Draining
        bundle = Bundle(query, delivery, self._policy, self, most, admit)
        bundle.merge.absent |= {lane: given.get(lane) for lane in self._search.lanes(query) if lane in away}
        # It is registered for new operations first, then searches for existing ones, so that none is missed in between.
        self._bundles.add(bundle)
        self._queries.add(query, bundle)
        self._streams.made(bundle)
        first_ping_s = self._settings.ping_s * random.uniform(0.5, 1)
        left_s = delivery.deadline - self._policy.clock()
        self._wheel.add(bundle, min(first_ping_s, self._settings.stream_max_age_s, left_s))
        try:
            await self._begin(bundle, lane_positions, wait=wait, resuming=start.position is not None)
        except BaseException:
            bundle.close("rejected")
            raise
        return bundle

    def _away(self) -> frozenset[int]:
        """Return the lanes whose feeds are not read now; raise `StorageUnavailable` if that is so for all.

        What this replica knows of such a lane may be what Redis has lost meanwhile.
        """
        away = frozenset(lane for lane in self._lane_of_feed.values() if not self.is_up_to_date(lane))
        if len(away) == len(self._lane_of_feed):
            raise StorageUnavailable("this server has no connection to Redis now: retry in a moment")
        return away

    async def _restarted(self, lane_positions: Mapping[int, LanePosition]) -> dict[int, LanePosition]:
        """Return a client's positions, with a restart for those that Redis has lost.

        The bundle is notified of later losses.
        """
        while True:
            losses = self._losses
            lost = await self._search.lost(lane_positions, self.watermarks)
            if losses == self._losses:
                break
        restarts = {}
        for number, shared in lost.items():
            before = lane_positions[number]
            since = min(before.trimmed_since or before.position, shared, self.watermarks[number], key=order)
            restarts[number] = LanePosition(since, partial=True, lost=True)
        return {**lane_positions, **restarts}

    async def _begin(
        self, bundle: Bundle, lane_positions: Mapping[int, LanePosition], *, wait: bool, resuming: bool
    ) -> None:
        """Search for existing operations, and follow them from the client's position in each lane."""
        merge = bundle.merge
        lanes = [lane for lane in self._search.lanes(bundle.query) if lane not in merge.absent]
        since = {number: merge.lane(number, lane_positions.get(number)).since for number in lanes}
        with merge.searching(lanes):
            found = await self._search.find(bundle, lanes, since)
            check_number(found, self._settings.max_operations_per_stream, resuming=resuming)
            if bundle.mode is Mode.CLOSED:  # it follows nothing, but the operations may exist
                raise Draining("this stream was closed before it started: retry in a moment")
            seen = begin(bundle, found.operations, self._search.lane_of)
            named = [id for id in bundle.query.ids if self._search.lane_of(id) in since]
            try:
                report_missing(bundle, found, named, wait=wait, seen=seen)
            except Ended:
                # What was found may be of a Redis that lost the client's position just now, before its feed told so.
                # Positions that were known to be lost are not among those by which ends count as received.
                received = {number: at for number, at in lane_positions.items() if not (at.partial or at.lost)}
                if await self._search.lost(received, {}):
                    raise StorageUnavailable("Redis has just lost events: retry in a moment") from None
                raise

    def _forget(self, bundle: Bundle, reason: str) -> None:
        self._wheel.remove(bundle)
        self.members.forget(bundle)
        self._queries.remove(bundle.query, bundle)
        self._bundles.discard(bundle)
        self._dirty.discard(bundle)
        self._waiting.discard(bundle)
        self._streams.closed(bundle, reason)

    def _flush(self) -> None:
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        dirty, self._dirty = self._dirty, set()
        for bundle in dirty:
            self._run_guarded(bundle, bundle.flush)

    def _run_guarded(self, bundle: Bundle, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception:
            log.exception("writing to a client failed; it is disconnected")
            bundle.abort("broken")
        if bundle.mode is not Mode.CLOSED and bundle.merge.waiting:
            self._waiting.add(bundle)
