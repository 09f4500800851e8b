"""Cancellation: ask an operation and its children to stop, or end them by force."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple, Protocol

import orjson

from progress_broker.errors import Conflict, Gone, NotFound, OperationEnded, StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.entry import NewEvent, encode
from progress_broker.model.operation import Cancel, Operation, PublishResult, Status
from progress_broker.operations.rollup import ChildIds
from progress_broker.settings import Settings
from progress_broker.storage.lanes import shown

log = logging.getLogger(__name__)

_TRIES = 8
_AT_ONCE = 50  # children in one round trip: Redis does nothing else meanwhile


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

    async def children(self, operation: str) -> ChildIds:
        """Return the ids of all children of an operation."""

    async def standings(self, operations: Sequence[str]) -> Sequence["Standing | None"]:
        """Return where operations stand, in one round trip; None for each that can't be read."""

    async def publish_each(self, entries: Sequence[tuple[str, NewEvent, Status]]) -> Sequence[bool]:
        """Append an event to each operation that has the expected status; return which were stored."""


class Standing(NamedTuple):
    """What the cancellation of a child depends on."""

    status: Status
    created_at: datetime
    has_children: bool


class _TooFast(StorageUnavailable):
    """An operation changes too often. Redis itself is available."""


async def cancel(store: Operations, operation: str, request: Cancel, *, force: bool) -> tuple[Operation, bool]:
    """Cancel an operation and all its descendants; return the operation, and whether it was changed.

    If one of them can't be cancelled, or if some lanes can't be reached, the others still are; the first error is
    raised at the end. If Redis becomes unavailable, its error is raised at once.
    """
    now, changed = await cancel_one(store, operation, request, force=force)
    seen, waiting = {operation}, [(operation, now.created_at)]
    faults: list[Exception] = []
    while waiting:
        parent, created = waiting.pop()
        children: Sequence[str] = ()
        with _logging_faults(parent, faults):
            children, away = await store.children(parent)
            if away:
                faults.append(_not_reached(operation, parent, away))
        for at in range(0, len(children), _AT_ONCE):
            group = [id for id in children[at : at + _AT_ONCE] if id not in seen]
            standings = await _cancel_together(store, group, request, created, force=force)
            for id in group:
                since: datetime | None = created  # also for the descendants of a child that can't be read
                if (standing := standings.get(id)) is not None:
                    since = standing.created_at if standing.has_children else None
                else:
                    with _logging_faults(id, faults):
                        since = await _cancel_child(store, id, request, created, force=force)
                if since is not None:
                    seen.add(id)
                    waiting.append((id, since))
    if faults:
        raise faults[0]
    return now, changed


def _not_reached(operation: str, parent: str, lanes_away: Sequence[int]) -> StorageUnavailable:
    return StorageUnavailable(
        f"operation {operation} is cancelled, but children of {parent} in {shown(lanes_away)} were not reached, because"
        " a part of Redis is away: repeat the request"
    )


async def _cancel_together(
    store: Operations, operations: Sequence[str], request: Cancel, since: datetime, *, force: bool
) -> dict[str, Standing]:
    """Cancel children without their descendants, in three round trips; return those that need nothing else.

    Each of the others has to be cancelled alone.
    """
    read = zip(operations, await store.standings(operations), strict=True)
    young = {id: standing for id, standing in read if standing is not None and standing.created_at >= since}
    due = {id: standing for id, standing in young.items() if not _is_cancelled(standing.status, force=force)}
    entries = [(id, _entry(store.settings, it.status, request, force=force), it.status) for id, it in due.items()]
    stored = dict(zip(due, await store.publish_each(entries), strict=True))
    # Read again now: a child that is created later is cancelled by its creator.
    now = zip(young, await store.standings(list(young)), strict=True)
    return {id: standing for id, standing in now if standing is not None and stored.get(id, True)}


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
        if _is_cancelled(now.status, force=force):
            return now, False
        if since is not None and now.created_at < since:
            return now, False
        entry = _entry(store.settings, now.status, request, force=force)
        try:
            await store.publish(operation, [entry], expect=now.status, as_observer=True)
        except (Conflict, OperationEnded):
            continue  # its status has changed: its worker or another cancel request was faster
        return await store.get(operation), True
    raise _TooFast(f"operation {operation} changed during each of {_TRIES} attempts to cancel it: try again")


def _is_cancelled(status: Status, *, force: bool) -> bool:
    return status.done or (status is Status.CANCELLING and not force)


def _entry(settings: Settings, status: Status, request: Cancel, *, force: bool) -> NewEvent:
    return ended(settings, status, request) if force or status is Status.PENDING else requested(settings, request)


def requested(settings: Settings, request: Cancel) -> NewEvent:
    """Return the event that requests an operation's worker to stop."""
    data = {"status": "cancelling", **request.model_dump(), "force_cancel_after_s": settings.force_cancel_after_s}
    return NewEvent("status", orjson.dumps(data), "cancelling")


def ended(settings: Settings, before: Status, request: Cancel) -> NewEvent:
    """Return the event that ends an operation without its worker."""
    why = "cancelled before it began" if before is Status.PENDING else "ended by force"
    error = {"type": "cancelled", "message": request.reason or why, **({"by": request.by} if request.by else {})}
    return encode("end", {"status": "cancelled", "error": error}, settings)
