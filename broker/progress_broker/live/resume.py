"""Where a new subscription stands, from what its client knows."""

from progress_broker.errors import Ended, Gone, NotFound
from progress_broker.live.channel import Channel
from progress_broker.model.event import END
from progress_broker.model.operation import Operation
from progress_broker.model.position import START
from progress_broker.operations import event_log, index_search
from progress_broker.operations.event_log import Beyond, Page
from progress_broker.operations.store import Store
from progress_broker.runtime.single_flight import Flights
from progress_broker.stream.delivery import Start
from progress_broker.stream.frames import Frame, make_frame, snapshot_frame
from progress_broker.stream.subscription import Subscription


class Placing:
    """Places subscriptions. What many ask at once is read once."""

    def __init__(self, store: Store, page_length: int) -> None:
        self._store = store
        self._page_length = page_length
        self._flights = Flights()

    async def place(self, subscription: Subscription, channel: Channel, start: Start) -> str | None:
        """Have a subscription stand where its client wants to begin, or after a snapshot; return why it can't, then."""
        operation, reset = channel.operation, None
        if start.beginning:
            length = self._page_length
            kept = await self._flights.share(
                ("kept", operation), lambda: event_log.kept(self._store, operation, length)
            )
            if kept:
                subscription.begin(kept[0].n - 1, START.encode(), [make_frame(event) for event in kept])
                return None
        elif start.position is not None:
            at = channel.find(start.position.encode())
            if at is not None:
                if at.type == END:
                    raise Ended(f"operation {operation} has ended, and its end was seen")
                subscription.begin(at.n, at.position)
                return None
            position = start.position
            page = await self._flights.share(
                ("after", operation, position), lambda: event_log.after(self._store, operation, position, 1)
            )
            reset = page.reset
            if page.at or page.events:  # of an operation that is not there, neither is
                _resume(subscription, operation, position, page)
                return None
        await self.place_anew(subscription, operation, reset)
        return reset

    async def place_anew(
        self, subscription: Subscription, operation: str, reset: str | None, since: bytes | None = None
    ) -> None:
        """Have a subscription begin with a snapshot, for this reason, that holds all there was at a position."""
        snapshot, frame = await self._snapshot(operation, reset, since)
        subscription.begin(snapshot.events - snapshot.done, snapshot.position.encode(), [frame])

    async def place_at_creation(self, subscription: Subscription, operation: str, first: bytes) -> None:
        """Have a subscription begin with a snapshot of the operation as it was created; all its events follow.

        `first` is where its first event stands: a read that began before that may tell of an earlier one of its id.
        """
        created = await self._flights.share(
            ("created", operation, first), lambda: index_search.as_created(self._store, operation)
        )
        if created is None:  # before it was kept where that is
            await self.place_anew(subscription, operation, None)
        else:
            subscription.begin(1, created.position.encode(), [snapshot_frame(created)])

    async def place_beyond(
        self, subscription: Subscription, channel: Channel, position: bytes, whole_since: bytes | None = None
    ) -> str | None:
        """Have a subscription stand after a position of its lane, or begin with a snapshot; return why, then.

        It does so, too, if the log no longer holds all that came after an older position, `whole_since`.
        """
        operation, since = channel.operation, whole_since or position

        async def read() -> tuple[int, Beyond]:
            n = channel.n
            return n, await event_log.beyond(self._store, operation, position, self._page_length, since)

        n, found = await self._flights.share(("beyond", operation, position, since), read)
        lost = found.last is None or found.last.n < n  # the feed has yet to tell of it
        if found.last is None or lost or found.trimmed:
            reset = "trimmed" if found.trimmed and not lost else "lost"
            await self.place_anew(subscription, operation, reset)
            return reset
        if found.events and found.events[0].n == 1:  # after where its client knows it
            raise Gone(f"operation {operation} was deleted, and its id is used again")
        if found.events:
            frames = [make_frame(event) for event in found.events]
            subscription.begin(frames[0].n - 1, position, frames)
        else:
            subscription.begin(found.last.n, found.last.position)
        return None

    async def _snapshot(self, operation: str, reset: str | None, since: bytes | None) -> tuple[Operation, Frame]:
        async def read() -> tuple[Operation, Frame]:
            snapshot = await self._store.get(operation)
            return snapshot, snapshot_frame(snapshot, reset)

        try:
            # A read that was under way before the position was there may miss it, so only those since then are shared.
            return await self._flights.share(("snapshot", operation, reset, since), read)
        except NotFound:  # the read may have been under way since before the operation was created
            return await read()


def _resume(subscription: Subscription, operation: str, position: str, page: Page) -> None:
    if page.at is not None:
        if page.at.type == END:
            raise Ended(f"operation {operation} has ended, and its end was seen")
        subscription.begin(page.at.n, page.at.position)
    else:
        subscription.begin(0, position.encode())
