"""What is due in the lanes: expired operations to remove, and operations whose worker is silent.

And what releases of the same schema that did not know it have left out of the order of creation.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

import redis.exceptions

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.operation import Status
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.connections import Connections
from progress_broker.storage.foreign import readable, warn_once
from progress_broker.storage.keys import Keyspace, LaneKeys
from progress_broker.storage.lanes import FanOut
from progress_broker.storage.scripts import LAPSED, REPAIR, SWEEP

SWEPT_AT_ONCE = 10_000
"""About how many expired operations are removed at most before the next pause."""
LEASES_PER_LANE = 200
_PER_CALL = 25  # operations that one call removes: Redis does nothing else meanwhile


class Upkeep:
    """Asks lanes for what is due. Its methods raise `StorageUnavailable` or `StorageFull` if no lane can be asked."""

    def __init__(self, connections: Connections, keyspace: Keyspace) -> None:
        self._connections, self._keyspace = connections, keyspace
        self._turn = 0  # the lane whose leases were corrected last

    async def sweep(self, *, most: int = SWEPT_AT_ONCE) -> int:
        """Remove the remains of expired operations until none is left, but not many more than `most`; return their
        number. If none has expired, it is one round trip. Lanes that can't be reached are left out."""
        lanes = FanOut(self._connections, self._keyspace)
        swept, due = 0, await self._due(lanes, lambda lane: lane.expiry)
        while due and swept < most:
            for number in tuple(due):
                lane, removed = self._keyspace.lane(number), 0
                keys = (lane.index, lane.expiry, lane.leases)
                if number not in lanes.away:
                    with _one_lane_alone(lanes, number, "swept"):
                        removed = int(
                            await self._connections.scripts.run(Call(SWEEP, keys, (lane.operations, str(_PER_CALL))))
                        )
                swept += removed
                if removed < _PER_CALL:
                    due.remove(number)
        return swept

    async def expired_leases(
        self, lanes: FanOut | None = None, held: Container[int] = (), *, most: int = LEASES_PER_LANE
    ) -> list[tuple[str, Status]]:
        """Return operations whose lease has expired, at most `most` per lane. If there is none, it is two round trips.

        Lanes that can't be reached are left out, and `lanes` has them afterwards. Nothing is searched in `held` ones.
        Each call also corrects deadlines of one lane that are too late, as they are after a clock was set back.
        """
        found = []
        lanes = lanes or FanOut(self._connections, self._keyspace)
        due = await self._due(lanes, lambda lane: lane.leases)
        self._turn = (self._turn + 1) % self._keyspace.lanes
        for number in dict.fromkeys([*due, self._turn]):
            if number in lanes.away or number in held:
                continue
            lane = self._keyspace.lane(number)
            with _one_lane_alone(lanes, number, "searched for expired leases"):
                reply = iter(
                    await self._connections.scripts.run(Call(LAPSED, (lane.leases,), (lane.operations, str(most))))
                )
                pairs = zip(reply, reply, strict=True)
                found += [(operation.decode(), Status(status.decode())) for operation, status in pairs]
        return found

    async def repair(self) -> int:
        """Repair the orders of creation that do not have as many operations as their lane; return how many were added
        or removed. If all have as many, it is one round trip. Lanes that can't be reached are left out."""
        lanes = FanOut(self._connections, self._keyspace)
        changed = 0
        for number, (listed, ordered) in (await self._sizes(lanes)).items():
            if listed != ordered and number not in lanes.away:
                with _one_lane_alone(lanes, number, "repaired"):
                    changed += await self._repair(self._keyspace.lane(number))
        return changed

    async def _repair(self, lane: LaneKeys) -> int:
        changed = 0
        for step in ("ADD", "REMOVE"):
            cursor: str | bytes = "0"
            while True:
                call = Call(REPAIR, (lane.index,), (lane.operations, step, cursor))
                cursor, of_part = await self._connections.scripts.run(call)
                changed += of_part
                if cursor == b"0":
                    break
        return changed

    async def _sizes(self, lanes: FanOut) -> dict[int, tuple[int, int]]:
        """Return how many operations each lane has in its index, and in its order of creation."""

        async def sizes(some: Sequence[int]) -> list[tuple[int, int]]:
            async with self._connections.commands.pipeline(transaction=False) as pipeline:
                for lane in map(self._keyspace.lane, some):
                    pipeline.zcard(lane.index)
                    pipeline.zcard(lane.creation_order)
                with storage_errors():
                    cards = iter([card or 0 for card in readable(await pipeline.execute(raise_on_error=False))])
            return list(zip(cards, cards, strict=True))

        return await lanes.ask(sizes)

    async def _due(self, lanes: FanOut, key_of: Callable[[LaneKeys], str]) -> list[int]:
        """Return the lanes whose sorted set of times has one that has passed."""

        async def due(some: Sequence[int]) -> list[bool]:
            keys = {key_of(self._keyspace.lane(number)): number for number in some}
            past: dict[int, bool] = {}
            for commands, on_node in self._connections.by_node(list(keys)):
                async with commands.pipeline(transaction=False) as pipeline:
                    pipeline.time()  # by the clock of the server that has the times
                    for key in on_node:
                        pipeline.zrange(key, 0, 0, withscores=True)
                    with storage_errors():
                        (seconds, microseconds), *first = readable(await pipeline.execute(raise_on_error=False))
                now_ms = 1000 * seconds + microseconds // 1000
                past |= {keys[key]: times and times[0][1] <= now_ms for key, times in zip(on_node, first, strict=True)}
            return [past[number] for number in some]

        return [number for number, is_due in (await lanes.ask(due)).items() if is_due]


@contextmanager
def _one_lane_alone(lanes: FanOut, number: int, done: str) -> Iterator[None]:
    """If a call for one lane fails, go on with other lanes: with all if Redis rejected the call, which is logged, and
    with those of other servers if the lane's server can't be reached."""
    try:
        yield
    except (Unreadable, redis.exceptions.ResponseError) as error:
        warn_once(f"lane {number} could not be {done}", str(error))
    except (StorageUnavailable, StorageFull) as error:
        lanes.leave_out(number, error)
