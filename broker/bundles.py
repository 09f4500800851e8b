"""The bundles of a replica: opened, handed the new operations they ask for, and let go when the feed has come on."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from broker import cursor, finding
from broker.bundle import Admit, Bundle, anything
from broker.bundling import Members
from broker.errors import Draining, Gone, Invalid, NotFound, StorageFull, StorageUnavailable
from broker.events import CREATED, Event
from broker.feed import backoff_s
from broker.finding import Facts, Found, read_terms
from broker.lane import Lane
from broker.member import Member
from broker.placing import Ended, Start
from broker.positions import order
from broker.queries import Queries, Query
from broker.settings import Settings
from broker.store import Store
from broker.stream import Mode
from broker.streams import Streams
from broker.tasks import Tasks
from broker.terms import ALL, Delivery, Terms
from broker.wheel import Wheel

log = logging.getLogger(__name__)


class Bundles:
    """The hub's bundles. It begins when the hub's first batch has been handed on."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        members: Members,
        tasks: Tasks,
        wheel: Wheel,
        streams: Streams,
        terms: Terms,
    ) -> None:
        self.draining = False
        self.frontier: dict[int, bytes] = {}
        """Up to where each lane's feed has been handed on."""
        self.members = members
        self._store, self._settings, self._tasks = store, settings, tasks
        self._wheel, self._streams = wheel, streams
        self._terms = replace(terms, on_close=self._forget)
        self._lane_of_feed = {store.keyspace.lane(lane).feed.encode(): lane for lane in range(store.keyspace.lanes)}
        self._queries: Queries[Bundle] = Queries()
        self._bundles: set[Bundle] = set()
        self._stirred: set[Bundle] = set()
        self._waiting: set[Bundle] = set()
        self._soon: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._bundles)

    def __iter__(self) -> Iterator[Bundle]:
        return iter(tuple(self._bundles))

    async def open(
        self, query: Query, start: Start, delivery: Delivery = ALL, *, admit: Admit = anything, wait: bool = False
    ) -> Bundle:
        """Return a bundle that stands where its client wants to begin; `attach` an outlet to it, or `close` it.

        Raises `NotFound` or `Gone` if there is none of the operations (unless it is to `wait` for one), `Ended` if
        nothing can follow the cursor, `Invalid` for a bad cursor or too many operations, and `StorageUnavailable`.
        """
        if len(self.frontier) < len(self._lane_of_feed):
            raise StorageUnavailable("Redis can't be reached just now: come back in a moment")
        most = self._settings.max_operations_per_stream
        places = {} if start.position is None else cursor.parse(start.position, len(self._lane_of_feed))
        # Asked before it hears of anything: what is created meanwhile would have its lane stand where the feed is.
        lost = await self._lost(places)
        if self.draining:
            raise Draining("this server is stopping: come back in a moment")
        bundle = Bundle(query, delivery, self._terms, self, most, admit)
        # It hears of new operations first, and then looks for those that are there: none is missed between.
        self._bundles.add(bundle)
        self._queries.add(query, bundle)
        self._streams.made(bundle)
        first_ping_s = self._settings.ping_s * random.uniform(0.5, 1)
        left_s = delivery.deadline - self._terms.clock()
        self._wheel.add(bundle, min(first_ping_s, self._settings.stream_max_age_s, left_s))
        try:
            known = {lane: position for lane, position in places.items() if lane not in lost}
            lanes = self._lanes(query)
            for number in lanes:
                bundle.merge.lane(number, known.get(number)).busy += 1
            since = {number: bundle.merge.lane(number).position for number in lanes}
            found = self._admitted(bundle, await self._find(query, lanes, since))
            if len(found.facts) > most:
                raise Invalid(
                    f"these are {len(found.facts)} operations or more, and a stream carries {most}:"
                    " narrow the query, or open several streams",
                    field="operation",
                )
            if bundle.mode is Mode.CLOSED:  # it follows nothing, which says nothing of the operations
                raise Draining("this stream was closed before it began: come back in a moment")
            seen = begin(bundle, found.facts, self._store.keyspace.lane_of, known, lost)
            self._tell_missing(bundle, found, wait=wait, seen=seen)
        except BaseException:
            bundle.close("refused")
            raise
        for lane in bundle.merge.lanes.values():
            lane.busy -= lane.number in lanes
        self._streams.opened(bundle, start)
        return bundle

    @staticmethod
    def _tell_missing(bundle: Bundle, found: Found, *, wait: bool, seen: int) -> None:
        there = {facts.operation for facts in found.facts}
        ids = [id for id in bundle.query.ids if id not in there]
        bundle.awaited |= set(ids) - found.gone.keys()
        for id in found.gone:
            bundle.merge.forget(id)
        if len(bundle) or bundle.query.endless or (seen and bundle.awaited):
            pass
        elif seen:
            raise Ended("all these operations have ended, and their ends were seen")
        elif not bundle.awaited:
            raise Gone("these operations were deleted")
        elif not wait:
            raise NotFound("there are no such operations: they were never created, or their retention has passed")
        for id in ids:
            bundle.missing(id, "gone" if id in found.gone else "not-found")

    # What the hub calls

    def hear(self, events: Iterable[Event]) -> None:
        """Hand the operations that were created to those who asked for such."""
        if not self._queries:
            return
        for event in events:
            if not event.n and event.type == CREATED:
                name, at = event.operation.decode(), event.position
                facts = Facts(name, read_terms(event.data), False, at, at)
                for bundle in self._queries.followers(name, facts.terms):
                    bundle.appeared(facts, self._store.keyspace.lane_of(name))

    def handed_on(self, positions: Mapping[bytes, bytes], resync: Sequence[int]) -> None:
        """Let go of what waited: all has been handed on up to these positions.

        What was created in lanes to `resync` may have been missed. Where a feed went back, storage has lost some.
        """
        before = dict(self.frontier) if resync else {}
        for feed, position in positions.items():
            self.frontier[self._lane_of_feed[feed]] = position
        for lane in resync:
            lost = lane in before and order(self.frontier[lane]) < order(before[lane])
            for bundle in self:
                if lane in bundle.merge.lanes:
                    self._look_again(bundle, bundle.merge.lanes[lane], lost=lost)
        self._flush()
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for bundle in waiting:
                self._let_go(bundle, bundle.handed_on)

    # What a bundle calls (`bundle.Home`)

    def stir(self, bundle: Bundle) -> None:
        """Let a bundle write what it can, soon: with all else that comes at this moment."""
        self._stirred.add(bundle)
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._flush)

    def place(self, bundle: Bundle, member: Member, after: bytes | None, reset: str | None = None) -> None:
        """Have a member's subscription begin."""
        self.members.place(bundle, member, after, reset)

    # Within

    def _forget(self, bundle: Bundle, reason: str) -> None:
        self._wheel.remove(bundle)
        self.members.forget(bundle)
        self._queries.remove(bundle.query, bundle)
        self._bundles.discard(bundle)
        self._stirred.discard(bundle)
        self._waiting.discard(bundle)
        self._streams.closed(bundle, reason)

    def _flush(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        stirred, self._stirred = self._stirred, set()
        for bundle in stirred:
            self._let_go(bundle, bundle.flush)

    def _let_go(self, bundle: Bundle, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception:
            log.exception("a client's outlet broke; it is cut off")
            bundle.abort("broken")
        if bundle.mode is not Mode.CLOSED and bundle.merge.waiting:
            self._waiting.add(bundle)

    def _lanes(self, query: Query) -> Sequence[int]:
        if query.endless:
            return range(self._store.keyspace.lanes)
        return sorted({self._store.keyspace.lane_of(id) for id in query.ids})

    async def _find(self, query: Query, lanes: Iterable[int], since: Mapping[int, bytes]) -> Found:
        if query.endless:
            most = self._settings.max_operations_per_stream + 1
            if query.within is None:
                return await finding.by_terms(self._store, query.terms, since, lanes, most)
            return await finding.within(self._store, query.terms, query.within, since, lanes, most)
        mine = set(lanes)
        return await finding.by_ids(self._store, [id for id in query.ids if self._store.keyspace.lane_of(id) in mine])

    @staticmethod
    def _admitted(bundle: Bundle, found: Found) -> Found:
        gone = {id: facts for id, facts in found.gone.items() if bundle.admit(facts)}
        return Found([facts for facts in found.facts if bundle.admit(facts)], gone)

    async def _lost(self, places: Mapping[int, bytes]) -> frozenset[int]:
        """Return the lanes whose feed ends before the client's position. Another replica may only be ahead of us."""
        ahead = [lane for lane, position in places.items() if order(position) > order(self.frontier[lane])]
        lasts = [await finding.last_of_feed(self._store, lane) for lane in ahead]
        return frozenset(lane for lane, last in zip(ahead, lasts, strict=True) if order(last) < order(places[lane]))

    def _look_again(self, bundle: Bundle, lane: Lane, *, lost: bool) -> None:
        """Look for operations of a lane that were not heard of; begin it anew, if what it told is lost."""
        lane.busy += 1
        before: list[str] = []
        if lost:
            before = bundle.merge.emptied(lane)
            lane.position = self.frontier[lane.number]
            lane.unopened.update(before)
        self._tasks.spawn(self._search(bundle, lane, before, lost=lost))

    async def _search(self, bundle: Bundle, lane: Lane, before: Sequence[str], *, lost: bool) -> None:
        try:
            found = await self._found_again(bundle, lane)
        except Exception:
            log.exception("the operations that a stream follows can't be looked for; its client is sent away")
            bundle.close("storage-unavailable", reconnect=True)
            return
        for facts in found.facts:
            again, at = facts.operation in before, order(lane.position)
            if again or not (facts.done and order(facts.position) <= at):
                if lost:
                    bundle.merge.begin_anew(lane, facts.operation)
                known = not lost and order(facts.first) <= at
                bundle.follow(facts, lane.number, lane.position if known else None, "lost" if again else None)
        for name in set(before) - {facts.operation for facts in found.facts}:
            lane.unopened.discard(name)
            bundle.missing(name, "gone")
        lane.busy -= 1
        bundle.stir(lane)

    async def _found_again(self, bundle: Bundle, lane: Lane) -> Found:
        tries = 0
        while bundle.mode is not Mode.CLOSED:
            try:
                found = await self._find(bundle.query, (lane.number,), {lane.number: lane.position})
                return self._admitted(bundle, found)
            except (StorageUnavailable, StorageFull):
                await asyncio.sleep(backoff_s(tries))
                tries += 1
        return Found([])


def begin(
    bundle: Bundle,
    found: Iterable[Facts],
    lane_of: Callable[[str], int],
    known: Mapping[int, bytes],
    lost: frozenset[int] = frozenset(),
) -> int:
    """Follow what was found, from the position that is known of each lane or with a snapshot.

    Return how many have ended, and their ends were seen. In the lanes that are `lost` storage has forgotten what the
    client knows.
    """
    seen = 0
    for facts in found:
        number = lane_of(facts.operation)
        position = known.get(number)
        lane = bundle.merge.lane(number)
        if position is None:
            if not bundle.query.endless or not facts.done or order(facts.position) > order(lane.position):
                bundle.merge.begin_anew(lane, facts.operation)
                bundle.follow(facts, number, None, "lost" if number in lost else None)
        elif facts.done and order(facts.position) <= order(position):
            seen += 1
        else:
            bundle.follow(facts, number, None if order(facts.first) > order(position) else position)
    return seen
