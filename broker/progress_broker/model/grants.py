"""Grants: which caller may do which action on which operations. No I/O happens here: callers pass the attributes in.

A principal may do an action if one of its grants covers it. A grant covers an operation if every selector of the grant
matches. A selector matches if the operation has any of its values. So `owners` together with `kinds` is narrower than
`owners` alone, and a second owner makes a grant wider.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from progress_broker.model.metadata import terms


class Action(StrEnum):
    """An action on an operation."""

    READ = "read"
    PUBLISH = "publish"
    CANCEL = "cancel"
    CREATE = "create"
    METRICS = "metrics"
    """Read the replicas' metrics. They belong to no single operation, so this needs a grant on all operations."""
    OBSERVE = "observe"
    """See what replicas do and who is connected to them: names of all, so this needs a grant on all operations."""
    AUDIT = "audit"
    """Read who changed what. It needs a grant on all operations, too."""
    ADMIN = "admin"
    """All other actions, and delete."""


@dataclass(frozen=True, slots=True)
class ResourceAttributes:
    """The attributes of an operation that grants look at. They never change after its creation."""

    id: str
    owner: str | None = None
    kind: str | None = None
    tags: Collection[str] = ()
    metadata: Collection[str] = ()
    """What its creation said that can be searched by, each as `key=value`. A worker's changes do not count."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Actions on operations. A selector that is None matches every operation; an empty one matches none."""

    actions: frozenset[Action]
    ids: frozenset[str] | None = None
    prefixes: tuple[str, ...] | None = None
    owners: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    metadata: tuple[frozenset[str], ...] | None = None
    """For each key, the values that match, as `key=value`; each key has to match."""

    def names(self, action: Action) -> bool:
        """Return whether the grant includes this action."""
        return action in self.actions or Action.ADMIN in self.actions

    def picks_id(self, id: str) -> bool:
        """Return whether the selectors by id match an operation. The other selectors are not checked."""
        return (self.ids is None or id in self.ids) and (self.prefixes is None or id.startswith(self.prefixes))

    @property
    def by_id(self) -> bool:
        """Whether the id is enough to decide."""
        return self.owners is None and self.kinds is None and self.tags is None and self.metadata is None

    def picks(self, attributes: ResourceAttributes) -> bool:
        """Return whether the grant covers an operation."""
        return (
            self.picks_id(attributes.id)
            and (self.owners is None or attributes.owner in self.owners)
            and (self.kinds is None or attributes.kind in self.kinds)
            and (self.tags is None or not self.tags.isdisjoint(attributes.tags))
            and (self.metadata is None or not any(each.isdisjoint(attributes.metadata) for each in self.metadata))
        )


@dataclass(frozen=True, slots=True)
class Grants:
    """All that a principal may do: an action must be allowed by at least one grant, and by every limit."""

    given: tuple[Grant, ...] = ()
    limits: tuple[Grant, ...] = ()

    def allows(self, action: Action, attributes: ResourceAttributes) -> bool:
        """Return whether an action on an operation is allowed."""
        return any(grant.names(action) and grant.picks(attributes) for grant in self.given) and all(
            limit.names(action) and limit.picks(attributes) for limit in self.limits
        )

    def decide_by_id(self, action: Action, id: str) -> bool | None:
        """Return whether an action is allowed, or None if the id is not enough to decide."""
        if self is EVERYTHING:  # what each caller has where none is authenticated
            return True
        grants = [grant for grant in self.given if grant.names(action) and grant.picks_id(id)]
        if not grants or not all(limit.names(action) and limit.picks_id(id) for limit in self.limits):
            return False
        sure = any(grant.by_id for grant in grants) and all(limit.by_id for limit in self.limits)
        return True if sure else None

    def allows_everywhere(self, action: Action) -> bool:
        """Return whether an action is allowed on every possible operation."""
        return not self.limits and any(grant.names(action) and grant == Grant(grant.actions) for grant in self.given)

    def sources(self, action: Action, *, prefixes: bool = False) -> frozenset[tuple[str, str]] | None:
        """Return index entries (field, value) that together contain every operation on which an action is allowed.

        With `prefixes`, those of ids may be among them, as `id_prefix`. Return None if there is no such set.
        """
        found: set[tuple[str, str]] = set()
        for grant in self.given:
            if not grant.names(action):
                continue
            selectors = (
                ("id", grant.ids),
                ("owner", grant.owners),
                *(("metadata", each) for each in grant.metadata or ()),
                ("tag", grant.tags),
                ("kind", grant.kinds),
                *([("id_prefix", grant.prefixes)] if prefixes else ()),
            )
            field, values = next(((field, values) for field, values in selectors if values is not None), ("", None))
            if values is None:
                return None
            found.update((field, value) for value in values)
        return frozenset(found)

    def narrowed(self, limit: Grant) -> Self:
        """Return these grants with one more limit."""
        return replace(self, limits=(*self.limits, limit))


def granted(
    actions: Iterable[str],
    *,
    metadata: Mapping[str, Iterable[object]] | None = None,
    **selectors: Iterable[str] | None,
) -> Grant:
    """Return a grant; raise `ValueError` for an unknown action, for metadata that can't be searched by, and for what is
    not a list of texts."""
    chosen = {
        name: (_texts(name, values) if name == "prefixes" else frozenset(_texts(name, values)))
        if values is not None
        else None
        for name, values in selectors.items()
    }
    named = None if metadata is None else tuple(frozenset(terms(key, metadata[key])) for key in sorted(metadata))
    named_actions = _texts("actions", actions)
    if unknown := [action for action in named_actions if action not in set(Action)]:
        raise ValueError(f"{unknown[0]!r} is not an action: use {', '.join(Action)}")
    return Grant(frozenset(map(Action, named_actions)), metadata=named, **chosen)  # type: ignore[arg-type]


def _texts(name: str, values: object) -> tuple[str, ...]:
    """Return a list of texts. A single text is none: its letters would be taken for the names."""
    found = None if isinstance(values, str | bytes) or not isinstance(values, Iterable) else tuple(values)
    if found is None or not all(isinstance(value, str) for value in found):
        raise ValueError(f'{name}: expected a list of texts, such as ["alice"], not {str(values)[:60]!r}')
    return found


NOTHING = Grants()
EVERYTHING = Grants((Grant(frozenset(Action)),))
