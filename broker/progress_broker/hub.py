"""The hub: delivers events from a replica's feeds to its subscriptions. It owns every task of the live path."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Self

from progress_broker.bundle.bundles import Bundles
from progress_broker.bundle.placer import MemberPlacer
from progress_broker.errors import Draining, NotFound, StorageFull, StorageUnavailable
from progress_broker.history.losses import note
from progress_broker.live.channels import Channels
from progress_broker.live.dispatcher import Dispatcher
from progress_broker.live.families import Families
from progress_broker.live.feed_counts import count_events
from progress_broker.live.feeds.batch import Batch
from progress_broker.live.feeds.feed_log import FeedLog
from progress_broker.live.feeds.pace import Pace
from progress_broker.live.feeds.reader import FeedReader
from progress_broker.live.loader import ChannelLoader
from progress_broker.live.probe import NotReadyReason, Probes
from progress_broker.live.reconciler import Reconciler
from progress_broker.live.resume import Resumer
from progress_broker.operations.store import Store
from progress_broker.replay.streams import ReplayStreams
from progress_broker.runtime import tracing
from progress_broker.runtime.backoff import backoff_s
from progress_broker.runtime.tally import Tally
from progress_broker.runtime.tasks import Tasks
from progress_broker.runtime.timer_wheel import TimerWheel
from progress_broker.settings import Settings
from progress_broker.storage.lanes import lanes_by_node
from progress_broker.storage.masters import Masters
from progress_broker.stream.delivery import ALL, Delivery, Start, stream_policy
from progress_broker.stream.drain import Connection, send_away
from progress_broker.stream.registry import StreamRegistry
from progress_broker.stream.subscription import Subscription
from progress_broker.stream.traced_source import TracedFrameSource, start_tracing_after
from progress_broker.workers.signals import SignalWaits


class Hub:
    """Delivers events to the subscriptions of their operation. Use it as an async context manager."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        *,
        tally: Tally | None = None,
    ) -> None:
        self.channels = Channels(settings.ring_length, settings.ring_bytes, clock)
        self.wheel = TimerWheel(clock)
        self.connections: set[Connection] = set()
        """The open connections that carry several subscriptions each."""
        self.tally = tally or Tally()
        self.draining = False
        self._store = store
        self._settings = settings
        self._traced = tracing.is_on()  # asked once: for each stream it would take a microsecond
        self.clock = clock
        readers = store.connections.readers(store.keyspace)
        log, paces = FeedLog(together=len(readers) > 1), list[Pace]()
        self.feeds = [
            FeedReader(reader, store.keyspace, least_kept=settings.feed_length, log=log, pace=Pace(paces))
            for reader in readers
        ]
        self._feed_of = {lane: feed for feed in self.feeds for lane in feed.lanes}
        self.client_metrics = store.connections.trips
        self._tasks = Tasks()
        self._loader = ChannelLoader(store, self._tasks, self.channels.forget)
        self._resumer = Resumer(store, settings.page_length)
        self.families = Families(store, self._tasks, clock)
        self._reconciler = Reconciler(store, self.channels, settings.sweep_interval_s, clock)
        self.streams = StreamRegistry(self.tally, clock)
        self._policy = stream_policy(settings, clock, self._closed, self.tally, self.streams.replica)
        members = MemberPlacer(
            self.channels, self._loader, self._resumer, self._tasks, self._policy, settings.redis_timeout_s
        )
        self.bundles = Bundles(
            store,
            settings,
            members,
            self._tasks,
            self.wheel,
            self.streams,
            self._policy,
            lambda lane: self._feed_of[lane].up_to_date,
        )
        self.replays = ReplayStreams(self._tasks, self.wheel, self.streams, self._policy, settings)
        self.signal_waits = SignalWaits()
        self._started = asyncio.Event()
        self.masters = Masters(store.connections)
        self._dispatcher = Dispatcher(self.channels, self.families, self.bundles, self.tally, clock)
        self.internal_handlers = self._dispatcher.internal_handlers
        """Handlers of internal entries, which belong to no operation, by the entry's name."""
        self.probes = Probes(
            store.probe,
            lambda: lanes_by_node(store.connections, store.keyspace),
            settings.probe_interval_s,
            clock,
            self.internal_handlers,
            self.tally.probe_refusals,
        )

    # Start and stop

    async def __aenter__(self) -> Self:
        for feed in self.feeds:
            self._tasks.keep_running(lambda feed=feed: self._follow(feed))  # type: ignore[misc]
        self._tasks.keep_running(self.wheel.run)
        self._tasks.keep_running(self._reconciler.run)
        self._tasks.keep_running(self._policy.replays.run)
        self._tasks.keep_running(self._run_probes)
        self._tasks.keep_running(self.masters.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drain()
        await self._tasks.close()

    @property
    def connected(self) -> bool:
        """Whether every feed is being read."""
        return all(feed.connected for feed in self.feeds)

    @property
    def lag_s(self) -> float:
        """The age of the last batch's newest event when it was received. It includes the difference of both clocks."""
        return self._dispatcher.lag_s

    def lane_state(self, lane: int) -> NotReadyReason | None:
        """Return why events published to a lane may not reach the clients, or None while delivery is proven to work."""
        probe = self.probes[lane]
        return probe.not_ready_reason if self._feed_of[lane].connected else probe.suspected_reason

    @property
    def not_ready_reason(self) -> NotReadyReason | None:
        """The state of the first lane whose delivery is not proven to work; None if there is none."""
        return next(filter(None, map(self.lane_state, self._feed_of)), None)

    @property
    def lanes(self) -> int:
        """The number of lanes."""
        return len(self._feed_of)

    @property
    def lanes_away(self) -> dict[int, NotReadyReason]:
        """The lanes whose operations get no new streams, and why. A full Redis does not count: it can still be read,
        and it is full for every replica."""
        states = {lane: self.lane_state(lane) for lane in self._feed_of}
        return {
            lane: state
            for lane, state in states.items()
            if state is not None and not (state == "redis full" and self._feed_of[lane].connected)
        }

    @property
    def ready(self) -> bool:
        """Whether this replica accepts new streams, of some lanes at least."""
        return not self.draining and len(self.lanes_away) < self.lanes

    def __len__(self) -> int:
        return len(self.streams)

    def drain(self, over_s: float = 0) -> None:
        """Accept no more subscriptions, and disconnect every client: at random moments within `over_s` seconds, or at
        once if that is 0.

        The clients reconnect to other replicas and resume from their positions.
        """
        self.draining = self.bundles.draining = self.replays.draining = True
        self.signal_waits.close()
        send_away(self.channels, {*self.connections, *self.bundles, *self.replays}, self.wheel, over_s)

    async def wait_until_empty(self) -> None:
        """Wait until the last client is disconnected."""
        await self.streams.wait_until_empty()

    # Subscribing

    async def subscribe(
        self, operation: str, start: Start, delivery: Delivery = ALL, *, await_creation: bool = False
    ) -> Subscription:
        """Return a subscription at the start that the client wants; `attach` an outlet to it, or `close` it.

        Raises `NotFound` (unless `await_creation` is set), `Gone`, `Ended` if nothing can follow the position, and
        `StorageUnavailable`.
        """
        if self.draining:
            raise Draining
        # It is registered before the log is read, and goes live after what was read. So no event is missed or repeated.
        channel = self.channels.get_or_create(operation, self._loader)
        source = TracedFrameSource(channel) if self._traced else channel
        subscription = Subscription(source, delivery, self._policy)
        channel.add(subscription)
        self.streams.made(subscription)
        if delivery.children:
            self.families.join(subscription, operation, delivery.interval_s)
        first_s = min(self._settings.ping_s * random.uniform(0.5, 1), self._settings.stream_max_age_s)
        self.wheel.add(subscription, min(first_s, delivery.deadline - self.clock()))
        try:
            lane = self._store.keyspace.lane_of(operation)
            if not self._feed_of[lane].connected:
                raise StorageUnavailable(self.probes[lane].detail or "Redis can't be reached now: retry in a moment")
            await self._loader.until_loaded(channel, self._settings.redis_timeout_s)
            if delivery.children:
                await self.families.reading(operation, self._settings.redis_timeout_s)
            reset = await self._resumer.resume(subscription, channel, start)
        except NotFound:
            if not await_creation:
                subscription.close("not-found")
                raise
            subscription.wait()
            if channel.n:  # it was created after the read
                subscription.appeared()
        except BaseException as error:
            subscription.close("rejected")
            if self.draining and isinstance(error, StorageUnavailable):
                raise Draining from None  # the shutdown cancelled the read that it waited for
            raise
        else:
            if reset is not None:
                self.streams.reset(subscription, start, reset)
        start_tracing_after(source, subscription.n)
        self.streams.opened(subscription, start)
        return subscription

    def _closed(self, subscription: Subscription, reason: str) -> None:
        self.wheel.remove(subscription)
        self.streams.closed(subscription, reason)

    # Background tasks

    async def _follow(self, feed: FeedReader) -> None:
        failed = 0
        async for batch in feed.batches():
            try:
                await self.dispatch(batch)
            except (StorageUnavailable, StorageFull):
                feed.connected = False  # it restarts with a resync, which also covers this batch
                await asyncio.sleep(backoff_s(failed))
                failed += 1
            else:
                failed = 0
                feed.delivered()
                self.bundles.feed_advanced(feed.positions, batch)
                feed.tried.set()
                self._started.set()

    async def started(self) -> None:
        """Wait until every feed is being read, or some are and each other one could not be reached once."""
        for feed in self.feeds:
            await feed.tried.wait()
        await self._started.wait()

    async def _run_probes(self) -> None:
        await self.started()  # an earlier probe would be before the position from which the feeds are read
        await self.probes.run()

    async def dispatch(self, batch: Batch) -> None:
        """Distribute a batch."""
        if batch.lost:
            await note(self._store, batch.lost)
        if batch.resync:
            await self._resync(set(batch.resync))
        if self.signal_waits:
            self.signal_waits.dispatch(batch.events)
        count_events(self.tally, batch.events)
        await self._dispatcher.dispatch(batch.events)

    async def _resync(self, lanes: set[int]) -> None:
        self.families.invalidate()
        lane_of = self._store.keyspace.lane_of
        await self._reconciler.compare(channel for channel in self.channels if lane_of(channel.operation) in lanes)
        self.signal_waits.wake_where(lambda operation: lane_of(operation) in lanes)
