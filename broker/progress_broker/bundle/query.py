"""What is followed: some operations by their ids, or all that are listed in some indexes; who follows a new one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from progress_broker.model.index_terms import Terms

FIELDS = ("parent", "owner", "tag", "kind")
"""The indexes that a query may name, those with fewer operations to a value first, as a rule."""

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Query:
    """Operations to follow: either those of these ids, or those listed in all these indexes, also the new ones."""

    ids: tuple[str, ...] = ()
    terms: Terms = frozenset()
    within: Terms | None = None
    """Where to look: all that may be seen is listed in one of these indexes, or is an `id:…`. None: anywhere."""

    @property
    def endless(self) -> bool:
        """Whether there can always be another."""
        return bool(self.terms)

    @property
    def rarest(self) -> bytes:
        """Return the index that leads to it: an operation that is in others only costs it nothing."""
        return min(self.terms, key=lambda term: (FIELDS.index(term.partition(b":")[0].decode()), term))


class Queries(Generic[F]):
    """Who follows what. A new operation costs a look-up for each index it is in, and for each query it may match."""

    def __init__(self) -> None:
        self._by_id: dict[str, set[F]] = {}
        self._by_term: dict[bytes, dict[Terms, set[F]]] = {}

    def __len__(self) -> int:
        return len(self._by_id) + len(self._by_term)

    def add(self, query: Query, follower: F) -> None:
        """Have somebody follow what a query asks for."""
        for id in query.ids:
            self._by_id.setdefault(id, set()).add(follower)
        if query.terms:
            self._by_term.setdefault(query.rarest, {}).setdefault(query.terms, set()).add(follower)

    def remove(self, query: Query, follower: F) -> None:
        """Have them follow it no more."""
        for id in query.ids:
            _discard(self._by_id, id, follower)
        if query.terms and query.rarest in self._by_term:
            _discard(self._by_term[query.rarest], query.terms, follower)
            if not self._by_term[query.rarest]:
                del self._by_term[query.rarest]

    def followers(self, id: str, terms: Terms) -> Iterable[F]:
        """Return who follows an operation that is listed in these indexes."""
        found = set(self._by_id.get(id, ()))
        for term in terms:
            for asked, followers in self._by_term.get(term, {}).items():
                if asked <= terms:
                    found |= followers
        return found


K = TypeVar("K")


def _discard(sets: dict[K, set[F]], key: K, follower: F) -> None:
    followers = sets.get(key)
    if followers is not None:
        followers.discard(follower)
        if not followers:
            del sets[key]
