"""Indexes that list operations, and search results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

IndexTerms = frozenset[bytes]
"""Indexes that list an operation, each as `field:value`, as it was created. These never change."""


@dataclass(frozen=True, slots=True)
class IndexedOperation:
    """The data that decides whether a client follows an operation, and from which position."""

    operation: str
    terms: IndexTerms
    done: bool
    position: bytes
    """The position of its last event."""
    first: bytes
    """The position of its first event."""

    def labels(self, field: str) -> list[str]:
        """Return the operation's values of an index field, such as `owner` or `tag`."""
        prefix = f"{field}:".encode()
        return [term[len(prefix) :].decode("utf-8", "replace") for term in self.terms if term.startswith(prefix)]


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search for operations to follow."""

    operations: Sequence[IndexedOperation]
    gone: Mapping[str, IndexedOperation] = field(default_factory=dict)
    """Deleted operations by id, with the attributes that are still known. They decide which clients may learn of the
    deletion."""


def read_terms(lines: bytes) -> IndexTerms:
    """Return the indexes from a text with one index per line, up to an empty line: those of changed metadata follow."""
    return frozenset(line for line in lines.partition(b"\n\n")[0].split(b"\n") if line)
