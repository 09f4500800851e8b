"""The parts of an export, as types. No I/O happens here.

An export is lines of JSON: a head, then for each operation its state, its events in the order of `n`, and its end, and
at last the end of the file. Bytes of JSON that a publisher sent stay the bytes that they are.
docs/reference/export-format.md describes the lines.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

FORMAT: Final = "progress-export"
VERSION: Final = 1


class ExportHead(NamedTuple):
    """Where and when an export was made, and what it chose."""

    exported_at: str
    """RFC 3339, in UTC."""
    release: str
    schema: int
    prefix: str
    query: Mapping[str, Sequence[str]]
    """Names and texts, as `queries/fields.py` writes them."""
    redacted: Sequence[str] = ()
    """The paths that were removed from events."""


class ExportedOperation(NamedTuple):
    """An operation's state, as its hash in Redis has it."""

    id: str
    fields: Mapping[bytes, bytes]
    indexes: bytes
    n: int
    """The number of its last event."""
    first_n: int
    """The number of the oldest event that its log has. Older events may be missing, or have gaps in their numbers."""
    position: bytes
    """The position of its last event."""


class ExportedEvent(NamedTuple):
    """An event, as its stream in Redis has it; `producer` and `seq` are empty if it has none."""

    n: int
    position: bytes
    type: bytes
    data: bytes
    producer: bytes = b""
    seq: bytes = b""


class OperationEnd(NamedTuple):
    """How many events of an operation there were, and the digest of its lines."""

    id: str
    events: int
    sha256: str
    """In hex, over the operation's line and the lines of its events, with their line feeds."""


class OperationVoid(NamedTuple):
    """The operation that was begun is left out: nothing of it counts."""

    id: str
    why: str


class FileEnd(NamedTuple):
    """How many operations and events there were, and the digest of their digests. A file without it was cut short."""

    operations: int
    events: int
    sha256: str
