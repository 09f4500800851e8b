"""Finds the start position of a new subscription, from what its client sent."""

from progress_broker.errors import Ended, Gone, NotFound
from progress_broker.history import event_log
from progress_broker.history.event_log import EventsAfter, Page
from progress_broker.history.losses import Lost
from progress_broker.history.older_events import whole_curve
from progress_broker.live.channel import Channel
from progress_broker.model.event import END
from progress_broker.model.operation import Operation
from progress_broker.model.position import START
from progress_broker.operations import index_search
from progress_broker.operations.store import Store
from progress_broker.runtime.single_flight import SingleFlight
from progress_broker.stream.delivery import Start
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.subscription import Subscription


class Resumer:
    """Sets the start position of subscriptions. Equal reads at the same time are shared."""

    def __init__(self, store: Store, page_length: int) -> None:
        self._store = store
        self._page_length = page_length
        self._single_flight = SingleFlight()

    async def resume(self, subscription: Subscription, channel: Channel, start: Start) -> str | None:
        """Start a subscription where its client wants, or with a snapshot; then return the reason for that."""
        operation, reset = channel.operation, None
        if start.beginning:
            length = whole_curve(self._page_length)
            kept = await self._single_flight.share(
                ("kept", operation), lambda: event_log.kept(self._store, operation, length)
            )
            if kept:
                subscription.begin(kept[0].n - 1, START.encode(), [make_frame(event) for event in kept])
                return None
        elif start.position is not None:
            at = channel.find(start.position.encode())
            if at is not None:
                if at.type == END:
                    raise Ended(f"operation {operation} has ended, and the client has received its end")
                subscription.begin(at.n, at.position)
                return None
            position = start.position
            subscription.expect(position.encode())
            page = await self._single_flight.share(
                ("after", operation, position), lambda: event_log.after(self._store, operation, position, 1)
            )
            reset = page.reset
            if page.at or page.events:  # if the operation does not exist, both are empty
                _resume_at(subscription, operation, position, page)
                return None
        lost = Lost(start.position.encode()) if start.position is not None and reset == "lost" else None
        await self.resume_with_snapshot(subscription, operation, reset, lost=lost)
        return reset

    async def resume_with_snapshot(
        self,
        subscription: Subscription,
        operation: str,
        reset: str | None,
        since: bytes | None = None,
        *,
        lost: Lost | None = None,
    ) -> None:
        """Start a subscription with a snapshot. `reset` is the reason; the snapshot is at least as new as `since`.

        If Redis has lost a position, all events after the last one that is shared with its client follow, also those
        older than the snapshot's state.
        """
        snapshot, frame = await self._snapshot(operation, reset, since, lost)
        end_follows = snapshot.done and frame.n == snapshot.events
        # The frame's position, because all subscriptions that share the frame then share these bytes, too.
        subscription.begin(frame.n - end_follows, frame.position, [frame])

    async def resume_at_creation(self, subscription: Subscription, operation: str, first: bytes) -> None:
        """Start a subscription with a snapshot of the operation right after its creation; all its events follow.

        `first` is the position of its first event. An older read in progress may return an earlier operation with the
        same id, so reads are shared only for the same `first`.
        """
        created = await self._single_flight.share(
            ("created", operation, first), lambda: index_search.as_created(self._store, operation)
        )
        if created is None:  # it was created by a version that did not store this position
            await self.resume_with_snapshot(subscription, operation, None)
        else:
            subscription.begin(1, created.position.encode(), [snapshot_frame(created)])

    async def resume_after(
        self, subscription: Subscription, channel: Channel, position: bytes, whole_since: bytes | None = None
    ) -> str | None:
        """Start a subscription after a position of its lane, or with a snapshot; then return the reason for that.

        It also starts with a snapshot if the log no longer has all events after the older position `whole_since`.
        """
        operation, since = channel.operation, whole_since or position

        async def read() -> tuple[int, EventsAfter]:
            n = channel.n
            return n, await event_log.after_lane_position(self._store, operation, position, self._page_length, since)

        n, found = await self._single_flight.share(("beyond", operation, position, since), read)
        lost = found.last is None or found.last.n < n  # the feed has not reported it yet
        if found.last is None or lost or found.trimmed:
            reset = "trimmed" if found.trimmed and not lost else "lost"
            await self.resume_with_snapshot(
                subscription, operation, reset, lost=Lost(since, of_lane=True) if reset == "lost" else None
            )
            return reset
        if found.events and found.events[0].n == 1:  # its first event is newer than the client's position
            raise Gone(f"operation {operation} was deleted, and a new operation has its id")
        if found.events:
            frames = [make_frame(event) for event in found.events]
            subscription.begin(frames[0].n - 1, position, frames)
        else:
            subscription.begin(found.last.n, found.last.position)
        return None

    async def _snapshot(
        self, operation: str, reset: str | None, since: bytes | None, lost: Lost | None
    ) -> tuple[Operation, Frame]:
        async def read() -> tuple[Operation, Frame]:
            # The state is read last, so that it is not older than the event.
            shared = None if lost is None else await event_log.last_shared(self._store, operation, lost)
            snapshot = await self._store.get(operation)
            return snapshot, snapshot_frame(snapshot, reset, shared)

        try:
            # A read that started before `since` existed may miss it, so reads are shared only for the same `since`.
            return await self._single_flight.share(("snapshot", operation, reset, since, lost), read)
        except (NotFound, Gone):  # the shared read may have started before the operation was created
            return await read()


def _resume_at(subscription: Subscription, operation: str, position: str, page: Page) -> None:
    if page.at is not None:
        if page.at.type == END:
            raise Ended(f"operation {operation} has ended, and the client has received its end")
        subscription.begin(page.at.n, page.at.position)
    else:
        subscription.begin(page.events[0].n - 1, position.encode())
