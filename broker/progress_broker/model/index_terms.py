"""Indexes that operations are listed in, and what is found by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Terms = frozenset[bytes]
"""Indexes that operations are listed in, `field:value` each; their values never change."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether and from where an operation is followed."""

    operation: str
    terms: Terms
    done: bool
    position: bytes
    """That of its last event."""
    first: bytes
    """That of its first event."""

    def labels(self, field: str) -> list[str]:
        """Return what it is listed under by an index, such as `owner` or `tag`."""
        prefix = f"{field}:".encode()
        return [term[len(prefix) :].decode("utf-8", "replace") for term in self.terms if term.startswith(prefix)]


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of the operations that somebody wants to follow."""

    facts: Sequence[Facts]
    gone: Mapping[str, Facts] = field(default_factory=dict)
    """Deleted ones by their ids, with what is still known of them: only who might follow them is told so."""


def read_terms(lines: bytes) -> Terms:
    """Return the indexes that are told one a line."""
    return frozenset(line for line in lines.split(b"\n") if line)
