"""What can be done to many operations, one at a time."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from progress_broker.model.grants import Action
from progress_broker.model.operation import TERMINAL, NewSignal, Status
from progress_broker.operations import retention
from progress_broker.operations.retention import Keep
from progress_broker.operations.store import Store
from progress_broker.queries.filters import UNFINISHED

Act = Callable[[str], Awaitable[bool]]
"""Does it to one operation; returns whether that changed it. Raises a `BrokerError`."""


class Verb(NamedTuple):
    """Something that is done to operations."""

    name: str
    """Such as `cancel`."""
    action: Action
    """What a caller's grants must allow."""
    statuses: frozenset[Status]
    """Of what a query finds, only operations with one of these: to others it can't be done."""
    act: Act
    frees: bool = False
    """Whether it frees memory, and works where Redis is full."""


def cancel(store: Store, *, reason: str | None, by: str | None, force: bool) -> Verb:
    """Return the verb that asks workers to stop."""

    async def act(operation: str) -> bool:
        return (await store.cancel(operation, reason=reason, by=by, force=force))[1]

    return Verb("cancel", Action.CANCEL, UNFINISHED, act)


def signal(store: Store, sent: NewSignal, *, by: str | None) -> Verb:
    """Return the verb that sends a signal to workers."""

    async def act(operation: str) -> bool:
        await store.signal(operation, sent, by=by)
        return True

    return Verb("signal", Action.CANCEL, UNFINISHED, act)


def delete(store: Store, *, force: bool = False) -> Verb:
    """Return the verb that deletes operations: with `force` also those that have not ended."""

    async def act(operation: str) -> bool:
        await store.delete(operation, force=force)
        return True

    return Verb("delete", Action.ADMIN, frozenset(Status) if force else TERMINAL, act, frees=True)


def retain(store: Store, keep: Keep | None) -> Verb:
    """Return the verb that says how long operations are kept."""

    async def act(operation: str) -> bool:
        await retention.keep(store, operation, keep)
        return True

    return Verb("retain", Action.ADMIN, frozenset(Status), act)
