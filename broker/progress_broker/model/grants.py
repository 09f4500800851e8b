"""Grants: who may do what to which operations. Nothing here reads or asks; whoever does hands in the facts.

A principal may do something if one of its grants covers it. A grant covers an operation that each of its selectors
picks, and a selector picks one that has any of its values. So `owners` and `kinds` together narrow, two owners widen.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self


class Action(StrEnum):
    """What can be done to an operation."""

    READ = "read"
    PUBLISH = "publish"
    CANCEL = "cancel"
    CREATE = "create"
    METRICS = "metrics"
    """To read the replicas' figures, which are of no operation: it takes a grant on all of them."""
    ADMIN = "admin"
    """All of the others, and to delete."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What grants look at in an operation; all of it stays as it was created."""

    id: str
    owner: str | None = None
    kind: str | None = None
    tags: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on operations. A selector that is None picks all; one without values picks none."""

    actions: frozenset[Action]
    ids: frozenset[str] | None = None
    prefixes: tuple[str, ...] | None = None
    owners: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    tags: frozenset[str] | None = None

    def names(self, action: Action) -> bool:
        """Return whether it is about this action at all."""
        return action in self.actions or Action.ADMIN in self.actions

    def picks_id(self, id: str) -> bool:
        """Return whether an operation may be covered, as far as its id tells."""
        return (self.ids is None or id in self.ids) and (self.prefixes is None or id.startswith(self.prefixes))

    @property
    def by_id(self) -> bool:
        """Whether the id alone tells."""
        return self.owners is None and self.kinds is None and self.tags is None

    def picks(self, facts: Facts) -> bool:
        """Return whether it covers an operation."""
        return (
            self.picks_id(facts.id)
            and (self.owners is None or facts.owner in self.owners)
            and (self.kinds is None or facts.kind in self.kinds)
            and (self.tags is None or not self.tags.isdisjoint(facts.tags))
        )


@dataclass(frozen=True, slots=True)
class Grants:
    """All that a principal may do: what any of its grants allows, within every one of its limits."""

    given: tuple[Grant, ...] = ()
    limits: tuple[Grant, ...] = ()

    def allows(self, action: Action, facts: Facts) -> bool:
        """Return whether an action on an operation is allowed."""
        return any(grant.names(action) and grant.picks(facts) for grant in self.given) and all(
            limit.names(action) and limit.picks(facts) for limit in self.limits
        )

    def decides(self, action: Action, id: str) -> bool | None:
        """Return whether an action is allowed where the id alone tells, or None: it takes the facts."""
        grants = [grant for grant in self.given if grant.names(action) and grant.picks_id(id)]
        if not grants or not all(limit.names(action) and limit.picks_id(id) for limit in self.limits):
            return False
        sure = any(grant.by_id for grant in grants) and all(limit.by_id for limit in self.limits)
        return True if sure else None

    def allows_everywhere(self, action: Action) -> bool:
        """Return whether an action is allowed on each operation there can be."""
        return not self.limits and any(grant.names(action) and grant == Grant(grant.actions) for grant in self.given)

    def sources(self, action: Action) -> frozenset[tuple[str, str]] | None:
        """Return fields and values that all the operations on which an action is allowed have one of, or None."""
        found: set[tuple[str, str]] = set()
        for grant in self.given:
            if not grant.names(action):
                continue
            selectors = (("id", grant.ids), ("owner", grant.owners), ("tag", grant.tags), ("kind", grant.kinds))
            field, values = next(((field, values) for field, values in selectors if values is not None), ("", None))
            if values is None:
                return None
            found.update((field, value) for value in values)
        return frozenset(found)

    def narrowed(self, limit: Grant) -> Self:
        """Return those that are allowed within a limit, too."""
        return replace(self, limits=(*self.limits, limit))


def granted(actions: Iterable[str], **selectors: Iterable[str] | None) -> Grant:
    """Return a grant; raise `ValueError` for an action there is none of."""
    chosen = {
        name: (tuple(values) if name == "prefixes" else frozenset(values)) if values is not None else None
        for name, values in selectors.items()
    }
    return Grant(frozenset(Action(action) for action in actions), **chosen)  # type: ignore[arg-type]


NOTHING = Grants()
EVERYTHING = Grants((Grant(frozenset(Action)),))
