"""What a query chooses. No I/O happens here.

Indexes and scripts only leave out what can't match; `Filters.match` decides, on an operation's snapshot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple, Self

from progress_broker.errors import InvalidInput
from progress_broker.model.grants import Action, Grants, ResourceAttributes
from progress_broker.model.metadata import FIELD, indexed
from progress_broker.model.operation import TERMINAL, Operation, Status
from progress_broker.operations.snapshot import attributes_of

IndexKey = tuple[str, str]
"""An index, as field and value, or a single operation, as `id` and its id."""

Group = Sequence[IndexKey]
"""Indexes that together have every operation that one of the filters lets through."""

UNFINISHED = frozenset(Status) - TERMINAL


class Span(NamedTuple):
    """A time from `since` on and before `until`, in milliseconds by Redis' clock; None means open."""

    since: int | None = None
    until: int | None = None

    def has(self, at: datetime | None) -> bool:
        """Return whether a time is in the span. None, a time that has not come, is only in one that is open."""
        if self == ALWAYS:
            return True
        if at is None:
            return False
        ms = round(at.timestamp() * 1000)
        return (self.since is None or self.since <= ms) and (self.until is None or ms < self.until)


ALWAYS = Span()


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a query; all have to match. One that is empty, False or None matches every operation."""

    ids: tuple[str, ...] = ()
    """Any of these."""
    statuses: frozenset[Status] = frozenset()
    """Any of these."""
    kinds: tuple[str, ...] = ()
    """Any of these."""
    owners: tuple[str, ...] = ()
    """Any of these."""
    tags: tuple[str, ...] = ()
    """All of these."""
    metadata: tuple[str, ...] = ()
    """All of these values of metadata, each as `key=value`."""
    parent: str | None = None
    roots: bool = False
    """Only operations without a parent."""
    id_prefix: str = ""
    text: str = ""
    """A part of the id or the title, in capital or small letters."""
    worker: str | None = None
    error: str | None = None
    """The type of the error, or a part of its message, in capital or small letters."""
    changed: Span = ALWAYS
    """The time of the last event."""
    created: Span = ALWAYS
    ended: Span = ALWAYS
    """The time of the end: only operations that have ended have one."""
    grants: Grants | None = None
    """The caller's grants; they must allow the `action`, and to read. None means that the caller may do everything."""
    action: Action = Action.READ

    def match(self, operation: Operation) -> bool:
        """Return whether an operation matches all filters."""
        return (
            (not self.ids or operation.id in self.ids)
            and (not self.statuses or operation.status in self.statuses)
            and (not self.kinds or operation.kind in self.kinds)
            and (not self.owners or operation.owner in self.owners)
            and all(tag in operation.tags for tag in self.tags)
            and (not self.metadata or set(self.metadata) <= set(indexed(operation.metadata)))
            and self.parent in (None, operation.parent)
            and not (self.roots and operation.parent is not None)
            and operation.id.startswith(self.id_prefix)
            and (not self.text or _has(operation.id, self.text) or _has(operation.title or "", self.text))
            and self.worker in (None, operation.worker)
            and (self.error is None or _is_error(operation.error or {}, self.error))
            and self.changed.has(operation.updated_at)
            and self.created.has(operation.created_at)
            and self.ended.has(operation.finished_at)
            and (self.grants is None or self._is_allowed(self.grants, attributes_of(operation)))
        )

    def _is_allowed(self, grants: Grants, attributes: ResourceAttributes) -> bool:
        return grants.allows(Action.READ, attributes) and grants.allows(self.action, attributes)

    def groups(self) -> list[Group]:
        """Return the groups of indexes that list what matches: every match is in at least one index of each group.

        If a group is empty, nothing can match.
        """
        statuses = sorted(self.possible_statuses())
        any_of: tuple[Group, ...] = (
            [("id", id) for id in self.ids],
            [("parent", self.parent)] if self.parent is not None else [],
            [("owner", owner) for owner in self.owners],
            [("kind", kind) for kind in self.kinds],
        )
        all_of = [*(("tag", tag) for tag in self.tags), *((FIELD, pair) for pair in self.metadata)]
        # Its group may be empty: what ended is never running.
        of_statuses = [[("status", status.value) for status in statuses]] if len(statuses) < len(Status) else []
        return [*filter(None, any_of), *of_statuses, *([key] for key in all_of)]

    def possible_statuses(self) -> frozenset[Status]:
        """Return the statuses that what matches may have."""
        statuses = self.statuses or frozenset(Status)
        return statuses if self.ended == ALWAYS else statuses & TERMINAL

    def only_ended(self) -> Self:
        """Return these filters for operations that have ended; raise `InvalidInput` if they name another status."""
        if not self.statuses <= TERMINAL:
            raise InvalidInput(
                "the order of the end has only operations that ended: leave out status, or sort", field="sort"
            )
        return replace(self, statuses=self.statuses or TERMINAL)

    def of_caller(self, grants: Grants) -> Self:
        """Return these filters for what a caller with these grants may do the `action` to."""
        everywhere = grants.allows_everywhere(self.action) and grants.allows_everywhere(Action.READ)
        return replace(self, grants=None if everywhere else grants)


def _has(text: str, part: str) -> bool:
    return part.casefold() in text.casefold()


def _is_error(error: dict[str, object], wanted: str) -> bool:
    return error.get("type") == wanted or _has(str(error.get("message") or ""), wanted)
