"""What replicas note of losses, so that whoever comes back with a lost position goes on from what both have.

A Redis that takes over may have events whose positions are older than the newest ones of the Redis before it: both
accepted writes for a moment, or a clock is behind. So a position that was lost does not say which of the older events
its reader has. A replica that followed the lane's feed knows up to where both feeds are the same.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from progress_broker.errors import StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.position import is_canonical, milliseconds, order
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store

_MOST = 64
"""How many notes of a lane are kept."""
_KEPT_MS = 86_400_000
_LATER_MS = 60_000
"""For how long after this replica others may have read from the Redis that was replaced."""


class Loss(NamedTuple):
    """What a reader of a lane's feed was told and Redis has lost: what was told before it changed servers."""

    shared: bytes
    """The last position up to which the feed has what was read of it."""
    told: bytes
    """The last position that was read."""
    certain: bool = True
    """Whether `shared` was found in the feed. Otherwise it is only older than what was lost."""


class Lost(NamedTuple):
    """A position that a client was told, and that Redis has lost or may have lost."""

    position: bytes
    certain: bool = False
    """Whether Redis has all that the client was told up to this position, and nothing else."""
    of_lane: bool = False
    """Whether it is the client's position in all operations of a lane."""


async def note(store: Store, losses: Mapping[int, Loss]) -> None:
    """Note the losses of lanes for all replicas. A Redis that accepts no writes now goes without the note."""
    async with store.connections.commands.pipeline(transaction=False) as pipeline:
        for lane, loss in losses.items():
            if loss.certain:
                key = store.keyspace.lane(lane).losses
                pipeline.xadd(key, {"shared": loss.shared, "told": loss.told}, maxlen=_MOST, approximate=False)
                pipeline.pexpire(key, _KEPT_MS)
        with suppress(StorageUnavailable, StorageFull, Unreadable), storage_errors():
            await pipeline.execute()


async def shared_up_to(store: Store, lane: int, position: bytes) -> bytes | None:
    """Return up to where a lane has what a client was told that has lost a position; None if no replica noted that."""
    notes: list[Any] = []
    with suppress(Unreadable), storage_errors():
        notes = await store.connections.commands.xrange(store.keyspace.lane(lane).losses)
    losses = [loss for _, fields in notes if (loss := _read(fields)) is not None]
    return min((loss.shared for loss in losses if _explains(loss, position)), key=order, default=None)


def _explains(loss: Loss, position: bytes) -> bool:
    return order(loss.shared) < order(position) and milliseconds(position) <= milliseconds(loss.told) + _LATER_MS


def _read(fields: Sequence[bytes]) -> Loss | None:
    pairs = dict(zip(fields[::2], fields[1::2], strict=False))
    loss = Loss(pairs.get(b"shared", b""), pairs.get(b"told", b""))
    return loss if is_canonical(loss.shared) and is_canonical(loss.told) else None
