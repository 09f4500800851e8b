"""Cancelling: an operation and its children are asked to stop, or ended by force."""

from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from broker.errors import Conflict, Gone, NotFound, OperationEnded, StorageUnavailable
from broker.models import Cancel, Operation, Status
from broker.publishing import Entry, encode
from broker.settings import Settings

if TYPE_CHECKING:
    from broker.store import Store

_TRIES = 8


async def cancel(store: "Store", operation: str, asked: Cancel, *, force: bool) -> tuple[Operation, bool]:
    """Cancel an operation, then its children, theirs, and so on; return it, and whether it was changed."""
    now, changed = await cancel_one(store, operation, asked, force=force)
    seen, waiting = {operation}, [operation]
    while waiting:
        for child in await store.children(waiting.pop()):
            if child not in seen:
                seen.add(child)
                waiting.append(child)
                with suppress(NotFound, Gone):  # it is about to leave the index
                    await cancel_one(store, child, asked, force=force)
    return now, changed


async def cancel_one(store: "Store", operation: str, asked: Cancel, *, force: bool = False) -> tuple[Operation, bool]:
    """Cancel an operation alone; return it, and whether it was changed."""
    for _ in range(_TRIES):
        now = await store.get(operation)
        if now.done or (now.status is Status.CANCELLING and not force):
            return now, False
        at_once = force or now.status is Status.PENDING
        entry = ended(store.settings, now.status, asked) if at_once else requested(store.settings, asked)
        try:
            await store.publish(operation, [entry], expect=now.status, silent_ms=0)
        except (Conflict, OperationEnded):
            continue  # its worker was quicker, or somebody else who cancels
        return await store.get(operation), True
    raise StorageUnavailable(f"operation {operation} changes too fast to be cancelled: try again")


def requested(settings: Settings, asked: Cancel) -> Entry:
    """Return the event that asks an operation's worker to stop."""
    data = {"status": "cancelling", **asked.model_dump(), "force_after_s": settings.force_after_s}
    return Entry("status", orjson.dumps(data), "cancelling")


def ended(settings: Settings, before: Status, asked: Cancel) -> Entry:
    """Return the event that ends an operation in its worker's place."""
    said = "cancelled before it began" if before is Status.PENDING else "ended by force"
    error = {"type": "cancelled", "message": asked.reason or said, **({"by": asked.by} if asked.by else {})}
    return encode("end", {"status": "cancelled", "error": error}, settings)
