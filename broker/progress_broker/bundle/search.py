"""Search: finds the operations that match a bundle's query and that its client may read."""

from collections.abc import Iterable, Mapping, Sequence

from progress_broker.bundle.bundle import Bundle
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.query import OperationQuery
from progress_broker.history import event_log
from progress_broker.history.losses import shared_up_to
from progress_broker.model.index_terms import Found
from progress_broker.model.position import START, a_minute_before, was_lost
from progress_broker.operations import index_search
from progress_broker.operations.store import Store


class Search:
    """Searches Redis for bundles."""

    def __init__(self, store: Store) -> None:
        self.lane_of = store.keyspace.lane_of
        self._store = store
        self._most = store.settings.max_operations_per_stream + 1  # one more, to detect that there are too many

    def lanes(self, query: OperationQuery) -> Sequence[int]:
        """Return the lanes in which operations may match."""
        if query.endless:
            return range(self._store.keyspace.lanes)
        return sorted({self.lane_of(id) for id in query.ids})

    async def find(self, bundle: Bundle, lanes: Iterable[int], since: Mapping[int, bytes]) -> Found:
        """Return the matching operations of some lanes. A query by index omits those that ended before `since`."""
        found = await self._find(bundle.query, lanes, since)
        gone = {id: indexed for id, indexed in found.gone.items() if bundle.admit(indexed)}
        return Found([indexed for indexed in found.operations if bundle.admit(indexed)], gone)

    async def lost(
        self, lane_positions: Mapping[int, LanePosition], watermarks: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """Return the lanes whose feed has lost the client's position, with a position up to which both are the same.

        `watermarks` are our positions in each feed, of which we will be told if they are lost.
        """
        changed_positions = {
            lane: at.position for lane, at in lane_positions.items() if at.position != watermarks.get(lane)
        }
        before = await event_log.up_to(self._store, changed_positions) if changed_positions else []
        kept = self._store.settings.feed_length
        return {
            lane: await shared_up_to(self._store, lane, position) or a_minute_before(position)
            for (lane, position), (found, length) in zip(changed_positions.items(), before, strict=True)
            if position != START.encode() and was_lost(position, found, length, kept)
        }

    async def _find(self, query: OperationQuery, lanes: Iterable[int], since: Mapping[int, bytes]) -> Found:
        if not query.endless:
            mine = set(lanes)
            return await index_search.by_ids(self._store, [id for id in query.ids if self.lane_of(id) in mine])
        if query.within is None:
            return await index_search.by_terms(self._store, query.terms, since, lanes, self._most)
        return await index_search.within(self._store, query.terms, query.within, since, lanes, self._most)
