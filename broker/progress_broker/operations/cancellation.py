"""Cancellation: ask an operation and its children to stop, or end them by force."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

import orjson

from progress_broker.errors import Conflict, Gone, NotFound, OperationEnded, StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import Cancel, Operation, PublishResult, Status
from progress_broker.settings import Settings

log = logging.getLogger(__name__)

_TRIES = 8


class Operations(Protocol):
    """What cancellation needs from the store."""

    @property
    def settings(self) -> Settings:
        """The settings of this process."""

    async def get(self, operation: str) -> Operation:
        """Return an operation's snapshot; raise `NotFound` or `Gone`."""

    async def publish(
        self, operation: str, entries: Iterable[NewEvent], *, expect: str = "", as_observer: bool = False
    ) -> PublishResult:
        """Append entries to an operation, if it has the expected status."""

    async def children(self, operation: str) -> Sequence[str]:
        """Return the ids of all children of an operation."""


class _TooFast(StorageUnavailable):
    """An operation changes too often. Redis itself is available."""


async def cancel(store: Operations, operation: str, request: Cancel, *, force: bool) -> tuple[Operation, bool]:
    """Cancel an operation and all its descendants; return the operation, and whether it was changed.

    If one of them can't be cancelled, the others still are; the first error is raised at the end. If Redis becomes
    unavailable, its error is raised at once.
    """
    now, changed = await cancel_one(store, operation, request, force=force)
    seen, waiting = {operation}, [(operation, now.created_at)]
    faults: list[Exception] = []
    while waiting:
        parent, created = waiting.pop()
        children: Sequence[str] = ()
        with _logging_faults(parent, faults):
            children = await store.children(parent)
        for id in children:
            if id in seen:
                continue
            since: datetime | None = created  # also for the descendants of a child that can't be read
            with _logging_faults(id, faults):
                since = await _cancel_child(store, id, request, created, force=force)
            if since is not None:
                seen.add(id)
                waiting.append((id, since))
    if faults:
        raise faults[0]
    return now, changed


@contextmanager
def _logging_faults(operation: str, faults: list[Exception]) -> Iterator[None]:
    try:
        yield
    except Unreadable as error:
        faults.append(StorageUnavailable(f"operation {operation} can't be cancelled with its parent: {error.detail}"))
    except (NotFound, Gone):
        pass  # its index entry will be removed soon
    except Exception as error:
        if isinstance(error, StorageUnavailable | StorageFull) and not isinstance(error, _TooFast):
            raise
        log.warning("cancelling operation %s together with its parent failed: %s", operation, error)
        faults.append(error)


async def _cancel_child(
    store: Operations, operation: str, request: Cancel, since: datetime, *, force: bool
) -> datetime | None:
    """Cancel a child without its descendants; return its time of creation.

    Return None if it is older than its parent: then `parent` is only a label, and the child is not cancelled.
    """
    now, _ = await cancel_one(store, operation, request, force=force, since=since)
    return now.created_at if now.created_at >= since else None


async def cancel_one(
    store: Operations, operation: str, request: Cancel, *, force: bool = False, since: datetime | None = None
) -> tuple[Operation, bool]:
    """Cancel an operation without its children; return it, and whether it was changed.

    An operation that was created before `since` is not cancelled.
    """
    for _ in range(_TRIES):
        now = await store.get(operation)
        if now.done or (now.status is Status.CANCELLING and not force):
            return now, False
        if since is not None and now.created_at < since:
            return now, False
        at_once = force or now.status is Status.PENDING
        entry = ended(store.settings, now.status, request) if at_once else requested(store.settings, request)
        try:
            await store.publish(operation, [entry], expect=now.status, as_observer=True)
        except (Conflict, OperationEnded):
            continue  # its status has changed: its worker or another cancel request was faster
        return await store.get(operation), True
    raise _TooFast(f"operation {operation} changed during each of {_TRIES} attempts to cancel it: try again")


def requested(settings: Settings, request: Cancel) -> NewEvent:
    """Return the event that requests an operation's worker to stop."""
    data = {"status": "cancelling", **request.model_dump(), "force_cancel_after_s": settings.force_cancel_after_s}
    return NewEvent("status", orjson.dumps(data), "cancelling")


def ended(settings: Settings, before: Status, request: Cancel) -> NewEvent:
    """Return the event that ends an operation without its worker."""
    why = "cancelled before it began" if before is Status.PENDING else "ended by force"
    error = {"type": "cancelled", "message": request.reason or why, **({"by": request.by} if request.by else {})}
    return encode("end", {"status": "cancelled", "error": error}, settings)
