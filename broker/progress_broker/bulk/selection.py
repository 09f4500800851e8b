"""Which operations a command on many is about."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

from progress_broker.bulk.verbs import Verb
from progress_broker.errors import InvalidInput
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.walk import walk

SAMPLES = 10


class Selection(NamedTuple):
    """What a query chose."""

    number: int
    """How many operations: at most one more than were asked for."""
    samples: Sequence[str]
    """The first of them."""
    lanes_away: Sequence[int]
    """The lanes that could not be reached. What they have is missing."""


def filters_for(verb: Verb, filters: Filters) -> Filters:
    """Return the filters with the verb's action, and the statuses to which it can be done.

    Raises `InvalidInput` if they name none of these.
    """
    statuses = (filters.statuses or verb.statuses) & verb.statuses
    if not statuses:
        known = ", ".join(sorted(verb.statuses))
        raise InvalidInput(f"{verb.name} is for operations that are {known}: leave out status", field="status")
    return replace(filters, statuses=statuses, action=verb.action)


async def select(store: Store, filters: Filters, most: int) -> Selection:
    """Count what matches, up to `most` and one more, and return some of it."""
    number, samples, away = 0, list[str](), list[int]()
    async with aclosing(walk(store, filters)) as parts:
        async for part in parts:
            number += len(part.operations)
            samples += [operation.id for operation in part.operations][: SAMPLES - len(samples)]
            away = list(part.lanes_away)
            if number > most:
                break
    return Selection(min(number, most + 1), samples, away)


async def found(store: Store, filters: Filters, away: set[int]) -> AsyncIterator[Sequence[str]]:
    """Yield the ids of what matches, in groups, and add the lanes that can't be reached to `away`."""
    async for part in walk(store, filters):
        away.update(part.lanes_away)
        yield [operation.id for operation in part.operations]
