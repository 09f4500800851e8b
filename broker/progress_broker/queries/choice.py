"""What a script is told of a query: groups of indexes, and tests. No I/O happens here.

A script only leaves out what can't match, so whatever it can't decide is left to `Filters.match`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from progress_broker.model.operation import TERMINAL
from progress_broker.operations.loading import by_lane
from progress_broker.queries.filters import ALWAYS, Filters, Group, Span
from progress_broker.queries.list_cursor import LATEST
from progress_broker.storage.keys import Keyspace

_INDEXES = 64
"""Indexes of a group, at most: a script asks each of them for each operation. A larger group is not told."""
_IDS = 250
"""Operations of a lane that a group names, at most."""
_LISTED_LATE_MS = 2_000
"""How much later than its place in the indexes an operation's last event may be: they are written once a second."""


class Order(StrEnum):
    """The order of operations in lists, the newest first."""

    CHANGED = "changed"
    """By the last change, to the second."""
    CREATED = "created"
    ENDED = "ended"
    """By the end; only those that have ended."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A group: lines that are the same for all lanes, and operations by their lane."""

    lines: str
    ids: Mapping[int, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Choice:
    """What each lane's script is told of a query."""

    groups: Sequence[_Part]
    tests: Sequence[str]

    def lanes(self, lanes: Iterable[int]) -> list[int]:
        """Return those of the lanes that may have an operation that matches."""
        return [lane for lane in lanes if all(group.lines or lane in group.ids for group in self.groups)]

    def arguments(self, lane: int) -> list[str]:
        """Return the arguments for a lane."""
        told: list[str] = []
        for group in self.groups:
            ids = group.ids.get(lane, ())
            if len(ids) <= _IDS:
                told += ("ANY", "\n".join(filter(None, (group.lines, *(f"={id}" for id in ids)))))
        return [*told, *self.tests]


def choose(filters: Filters, keyspace: Keyspace) -> Choice:
    """Return what scripts are told of a query."""
    groups = [*filters.groups(), *_of_caller(filters)]
    return Choice([_divided(group, keyspace) for group in groups if _is_told(group)], list(_tests(filters)))


def in_order(filters: Filters, order: Order) -> Filters:
    """Return the filters for a list in an order."""
    return filters.only_ended() if order is Order.ENDED else filters


def _of_caller(filters: Filters) -> list[Group]:
    """Return the group of what the caller's grants name, or nothing if they do not tell."""
    named = None if filters.grants is None else filters.grants.sources(filters.action, prefixes=True)
    return [] if named is None else [sorted(named)]


def _is_told(group: Group) -> bool:
    return sum(field != "id" for field, _ in group) <= _INDEXES


def _divided(group: Group, keyspace: Keyspace) -> _Part:
    lines = [f"^{value}" if field == "id_prefix" else f"{field}:{value}" for field, value in group if field != "id"]
    ids = dict.fromkeys(value for field, value in group if field == "id")
    # Nothing is listed under a text of several lines.
    return _Part("\n".join(line for line in lines if "\n" not in line), by_lane(keyspace, ids))


def _tests(filters: Filters) -> Iterable[str]:
    if filters.created != ALWAYS:
        yield from ("CREATED", _bounds(filters.created))
    if (listed := _listed(filters)) != ALWAYS:
        yield from ("CHANGED", _bounds(listed))
    if filters.changed != ALWAYS:
        yield from ("LAST_EVENT", _bounds(filters.changed))
    if filters.id_prefix:
        yield from ("ID_PREFIX", filters.id_prefix)
    if filters.roots:
        yield "ROOTS"
    if filters.text:
        yield from ("TEXT", filters.text.casefold())
    if filters.metadata:
        yield "METADATA"
    if filters.worker is not None and "\ufffd" not in filters.worker:  # it may be shown for what is no text
        yield from ("WORKER", filters.worker)
    if filters.error:
        yield from ("ERROR", filters.error.casefold())


def _listed(filters: Filters) -> Span:
    """Return when what matches was listed as changed. A heartbeat may list it later than its last event, until it ends.

    One that has ended is listed at its end.
    """
    since, until = filters.ended
    if filters.changed.since is not None:
        since = max(since or 0, filters.changed.since - _LISTED_LATE_MS)
    ends = [ms for ms in (until, filters.changed.until) if ms is not None]
    if not (ends and filters.possible_statuses() <= TERMINAL):
        return Span(since)
    return Span(since, min(ends))


def _bounds(span: Span) -> str:
    """Return the first and the last millisecond of a span."""
    since, until = span
    return f"{0 if since is None else since} {LATEST if until is None else max(0, until - 1)}"
