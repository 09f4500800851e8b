"""Queries: which operations a bundle follows, by id or by index, and which bundles follow a new operation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from progress_broker.model.index_terms import IndexTerms

FIELDS = ("parent", "owner", "metadata", "tag", "kind")
"""The indexes that a query may use. Those that usually have fewer operations per value come first."""

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class OperationQuery:
    """Operations to follow: either those with these ids, or those listed in all these indexes, including new ones."""

    ids: tuple[str, ...] = ()
    terms: IndexTerms = frozenset()
    within: IndexTerms | None = None
    """Where to search: every operation that the client may read is in one of these indexes, or is an `id:…`.
    None means everywhere."""

    @property
    def endless(self) -> bool:
        """Whether new operations can always match."""
        return bool(self.terms)

    @property
    def rarest(self) -> bytes:
        """The index to look up the query by. Operations outside of this index cost the query nothing."""
        return min(self.terms, key=lambda term: (FIELDS.index(term.partition(b":")[0].decode()), term))


class QueryIndex(Generic[F]):
    """The followers of each query. A new operation costs one look-up per index it is in and per possible query."""

    def __init__(self) -> None:
        self._by_id: dict[str, set[F]] = {}
        self._by_term: dict[bytes, dict[IndexTerms, set[F]]] = {}

    def __len__(self) -> int:
        return len(self._by_id) + len(self._by_term)

    def add(self, query: OperationQuery, follower: F) -> None:
        """Add a follower of a query."""
        for id in query.ids:
            self._by_id.setdefault(id, set()).add(follower)
        if query.terms:
            self._by_term.setdefault(query.rarest, {}).setdefault(query.terms, set()).add(follower)

    def remove(self, query: OperationQuery, follower: F) -> None:
        """Remove a follower of a query."""
        for id in query.ids:
            _discard(self._by_id, id, follower)
        if query.terms and query.rarest in self._by_term:
            _discard(self._by_term[query.rarest], query.terms, follower)
            if not self._by_term[query.rarest]:
                del self._by_term[query.rarest]

    def followers(self, id: str, terms: IndexTerms) -> Iterable[F]:
        """Return the followers of an operation that is listed in these indexes."""
        found = set(self._by_id.get(id, ()))
        for term in terms:
            for query_terms, followers in self._by_term.get(term, {}).items():
                if query_terms <= terms:
                    found |= followers
        return found


K = TypeVar("K")


def _discard(sets: dict[K, set[F]], key: K, follower: F) -> None:
    followers = sets.get(key)
    if followers is not None:
        followers.discard(follower)
        if not followers:
            del sets[key]
