"""Cancelling: an operation and its children are asked to stop, or ended by force."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

import orjson

from progress_broker.errors import Conflict, Gone, NotFound, OperationEnded, StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.entry import Entry, encode
from progress_broker.model.operation import Answer, Cancel, Operation, Status
from progress_broker.settings import Settings

log = logging.getLogger(__name__)

_TRIES = 8


class Operations(Protocol):
    """What cancelling asks of the store."""

    @property
    def settings(self) -> Settings:
        """Those of this process."""

    async def get(self, operation: str) -> Operation:
        """Return an operation's snapshot; raise `NotFound` or `Gone`."""

    async def publish(
        self, operation: str, entries: Iterable[Entry], *, expect: str = "", as_observer: bool = False
    ) -> Answer:
        """Append entries to an operation, if its status is as expected."""

    async def children(self, operation: str) -> Sequence[str]:
        """Return the ids of an operation's children, however many."""


class _TooFast(StorageUnavailable):
    """An operation changes all the time; Redis itself is there."""


async def cancel(store: Operations, operation: str, asked: Cancel, *, force: bool) -> tuple[Operation, bool]:
    """Cancel an operation, then its children, theirs, and so on; return it, and whether it was changed.

    What is wrong with one of them keeps no other from it, and is raised at the end. Where Redis is away, it ends there.
    """
    now, changed = await cancel_one(store, operation, asked, force=force)
    seen, waiting = {operation}, [(operation, now.created_at)]
    faults: list[Exception] = []
    while waiting:
        parent, created = waiting.pop()
        children: Sequence[str] = ()
        with _noting_faults(parent, faults):
            children = await store.children(parent)
        for id in children:
            if id in seen:
                continue
            since: datetime | None = created  # of one that can't be read, those below count from there, too
            with _noting_faults(id, faults):
                since = await _cancel_child(store, id, asked, created, force=force)
            if since is not None:
                seen.add(id)
                waiting.append((id, since))
    if faults:
        raise faults[0]
    return now, changed


@contextmanager
def _noting_faults(operation: str, faults: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        faults.append(StorageUnavailable(f"operation {operation} can't be cancelled with its parent: {error.detail}"))
    except (NotFound, Gone):
        pass  # it is about to leave the index
    except Exception as error:
        if isinstance(error, StorageUnavailable | StorageFull) and not isinstance(error, _TooFast):
            raise
        log.warning("operation %s can't be cancelled with its parent: %s", operation, error)
        faults.append(error)


async def _cancel_child(
    store: Operations, operation: str, asked: Cancel, since: datetime, *, force: bool
) -> datetime | None:
    """Cancel a child alone; return when it was created, or None if its parent is younger and thus only a label."""
    now, _ = await cancel_one(store, operation, asked, force=force, since=since)
    return now.created_at if now.created_at >= since else None


async def cancel_one(
    store: Operations, operation: str, asked: Cancel, *, force: bool = False, since: datetime | None = None
) -> tuple[Operation, bool]:
    """Cancel an operation alone, unless it was created before `since`; return it, and whether it was changed."""
    for _ in range(_TRIES):
        now = await store.get(operation)
        if now.done or (now.status is Status.CANCELLING and not force):
            return now, False
        if since is not None and now.created_at < since:
            return now, False
        at_once = force or now.status is Status.PENDING
        entry = ended(store.settings, now.status, asked) if at_once else requested(store.settings, asked)
        try:
            await store.publish(operation, [entry], expect=now.status, as_observer=True)
        except (Conflict, OperationEnded):
            continue  # its worker was quicker, or somebody else who cancels
        return await store.get(operation), True
    raise _TooFast(f"operation {operation} changes too fast to be cancelled: try again")


def requested(settings: Settings, asked: Cancel) -> Entry:
    """Return the event that asks an operation's worker to stop."""
    data = {"status": "cancelling", **asked.model_dump(), "force_after_s": settings.force_after_s}
    return Entry("status", orjson.dumps(data), "cancelling")


def ended(settings: Settings, before: Status, asked: Cancel) -> Entry:
    """Return the event that ends an operation in its worker's place."""
    said = "cancelled before it began" if before is Status.PENDING else "ended by force"
    error = {"type": "cancelled", "message": asked.reason or said, **({"by": asked.by} if asked.by else {})}
    return encode("end", {"status": "cancelled", "error": error}, settings)
