"""Reads an export, chunk by chunk, and checks it. No I/O happens here."""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final

import orjson

from progress_broker.errors import InvalidInput
from progress_broker.model.position import is_canonical
from progress_broker.transfer.files.operation_line import read_operation
from progress_broker.transfer.files.values import data_of, members_of, value_of
from progress_broker.transfer.format import (
    FORMAT,
    VERSION,
    ExportedEvent,
    ExportedOperation,
    ExportHead,
    FileEnd,
    OperationEnd,
    OperationVoid,
)

Part = ExportHead | ExportedOperation | Sequence[ExportedEvent] | OperationEnd | OperationVoid | FileEnd

MOST_BYTES: Final = 16 * 1024 * 1024
"""How long a line may be."""
_AT_ONCE: Final = 200
"""Events in a part at most."""

# As we write it: the position, the type and the producer are what needs no escape. Other lines are read the long way.
_EVENT = re.compile(
    rb'\{"k":"event","n":(\d{1,15}),"p":"(\d{1,20}-\d{1,20})","t":"([\w.~-]*)"'
    rb'(?:,"producer":"([\w.:/@ ~-]*)","seq":(\d{1,16}))?,"d":'
)


class DamagedExport(InvalidInput):
    """A file is no export, was cut short, or was changed."""


class ExportReader:
    """Returns the parts of an export. It raises `DamagedExport` at the first line that is wrong.

    With `partial`, it leaves out operations that are wrong or cut short, and says so in `damage`.
    """

    def __init__(self, *, partial: bool = False) -> None:
        self.damage: list[str] = []
        """What was wrong, with `partial`."""
        self._partial = partial
        self._rest = b""
        self._line = 0
        self._head: ExportHead | None = None
        self._operation: ExportedOperation | None = None
        self._digest, self._of_file = sha256(), sha256()
        self._last = 0  # the number of the last event
        self._events: list[ExportedEvent] = []
        self._pending: list[bytes] = []  # their lines, for the digest
        self._count = self._operations = self._all_events = 0
        self._skips = self._ended = False

    def feed(self, chunk: bytes) -> Iterator[Part]:
        """Yield the parts that a chunk completes."""
        lines = (self._rest + chunk if self._rest else chunk).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if self._operation is None or not self._took(line):
                yield from self._checked(line)
            elif len(self._events) >= _AT_ONCE:
                yield from self._flush()
        if len(self._rest) > MOST_BYTES:
            raise self._damaged(f"is longer than {MOST_BYTES >> 20} MiB", line=self._line + 1)
        yield from self._flush()

    def close(self) -> Iterator[Part]:
        """Yield the parts of a last line that has no line feed. Raise `DamagedExport` if the end is missing."""
        if self._rest:
            rest, self._rest = self._rest, b""
            yield from self._checked(rest)
        if self._ended:
            return
        if self._head is None:
            raise DamagedExport("this is no export: it is empty")
        cut = "the export was cut short: its last line, `eof`, is missing. Whole operations of it: --partial"
        if not self._partial:
            raise DamagedExport(cut)
        self.damage.append("the export was cut short")
        yield from self._void("it was cut short")

    def _took(self, line: bytes) -> bool:
        """Return whether a line is that of an event as we write it, and has been read."""
        match = _EVENT.match(line)
        if match is None or line[-1:] != b"}":
            return False
        data = line[match.end() : -1]
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        digits, position, kind, producer, seq = match.groups(b"")
        n = int(digits)
        if n <= self._last:
            return False
        self._last = n
        self._line += 1
        self._events.append(ExportedEvent(n, position, kind, data, producer, seq))
        self._pending.append(line)
        return True

    def _checked(self, line: bytes) -> Iterator[Part]:
        self._line += 1
        try:
            yield from self._read(line)
        except DamagedExport:
            raise
        except ValueError as error:
            yield from self._wrong(str(error))
        except RecursionError:
            yield from self._wrong("it is nested too deeply")

    def _read(self, line: bytes) -> Iterator[Part]:
        if self._head is None:
            self._head = self._read_head(line)
            yield self._head
            return
        if self._ended:
            if line:
                raise DamagedExport(f"line {self._line}: something follows the end of the export")
            return
        members = members_of(line)
        kind = (value_of(members, "k") or b"").decode()
        match kind:
            case "event":
                if self._operation is not None:
                    self._add(_read_event(members), line)
                elif not self._skips:
                    raise ValueError("an event of no operation")
            case "operation":
                yield from self._flush()
                yield from self._begin(line)
            case "end":
                yield from self._flush()
                yield from self._end(members)
            case "void":
                yield from self._flush()
                yield from self._void((value_of(members, "why") or b"").decode("utf-8", "replace"))
                self._skips = False
            case "eof":
                yield from self._flush()
                yield from self._file_end(members)
            case _:
                pass  # of a later release

    def _read_head(self, line: bytes) -> ExportHead:
        try:
            head = orjson.loads(line)
        except orjson.JSONDecodeError:
            head = None
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise DamagedExport(f'this is no export: its first line has no "format":"{FORMAT}"')
        if head.get("version") != VERSION:
            raise DamagedExport(
                f"the export is of version {str(head.get('version'))[:20]}, and this release reads version {VERSION}:"
                " use a later release"
            )
        source: dict[str, object] = head["source"] if isinstance(head.get("source"), dict) else {}
        query, redacted = head.get("query"), head.get("redacted")
        return ExportHead(
            str(head.get("exported_at") or ""),
            str(source.get("release") or ""),
            schema if isinstance(schema := source.get("schema"), int) else 0,
            str(source.get("prefix") or ""),
            query if isinstance(query, dict) else {},
            redacted if isinstance(redacted, list) else (),
        )

    def _begin(self, line: bytes) -> Iterator[Part]:
        yield from self._unended()
        operation = read_operation(line)
        self._skips = False
        self._operation, self._last, self._count = operation, 0, 0
        self._digest = sha256(line + b"\n")
        yield operation

    def _add(self, event: ExportedEvent, line: bytes) -> None:
        if event.n <= self._last:
            raise ValueError(f"event {event.n} is not after event {self._last}")
        self._last = event.n
        self._events.append(event)
        self._pending.append(line)

    def _flush(self) -> Iterator[Part]:
        if self._events:
            events, self._events = self._events, []
            self._pending.append(b"")
            self._digest.update(b"\n".join(self._pending))
            self._pending = []
            self._count += len(events)
            yield events

    def _end(self, members: dict[str, bytes]) -> Iterator[Part]:
        if self._operation is None:
            if self._skips:
                self._skips = False
                return
            raise ValueError("an end of no operation")
        operation, end = self._operation, _read_end(members)
        if end != OperationEnd(operation.id, self._count, self._digest.hexdigest()):
            raise ValueError(f"operation {operation.id} was changed or lacks events: its digest does not match")
        if self._last > operation.n:
            raise ValueError(
                f"operation {operation.id} has events after its state, which is that of event {operation.n}"
            )
        self._of_file.update(self._digest.digest())
        self._operations, self._all_events = self._operations + 1, self._all_events + self._count
        self._operation = None
        yield end

    def _file_end(self, members: dict[str, bytes]) -> Iterator[Part]:
        yield from self._unended()
        end = FileEnd(
            int(value_of(members, "operations") or b"-1"),
            int(value_of(members, "events") or b"-1"),
            (value_of(members, "sha256") or b"").decode(),
        )
        self._ended = True
        ours = FileEnd(self._operations, self._all_events, self._of_file.hexdigest())
        if end != ours and not self.damage:
            raise ValueError(
                f"the export has {ours.operations} operations and {ours.events} events, and not all of those that it"
                f" had when it was written ({end.operations} and {end.events}), or others"
            )
        yield end

    def _unended(self) -> Iterator[Part]:
        if self._operation is not None:
            yield from self._wrong(f"operation {self._operation.id} has no end before it")

    def _wrong(self, why: str) -> Iterator[Part]:
        error = self._damaged(f"is wrong: {why}")
        if not self._partial or self._head is None:
            raise error
        self.damage.append(error.detail)
        yield from self._void(why)
        self._skips = True

    def _void(self, why: str) -> Iterator[Part]:
        """Leave out the operation that was begun."""
        self._events, self._pending = [], []
        operation, self._operation = self._operation, None
        if operation is not None:
            yield OperationVoid(operation.id, why)

    def _damaged(self, what: str, *, line: int | None = None) -> DamagedExport:
        return DamagedExport(f"the export is damaged: line {line or self._line} {what}")


def _read_event(members: dict[str, bytes]) -> ExportedEvent:
    n, position, kind = value_of(members, "n") or b"", value_of(members, "p") or b"", value_of(members, "t")
    data = data_of(members, "d")
    if not n.isdigit() or len(n) > 15:
        raise ValueError("the event has no number `n`")
    if not is_canonical(position):
        raise ValueError(f"event {n.decode()} has no valid position `p`")
    if kind is None or data is None:
        raise ValueError(f"event {n.decode()} has no type `t` or no data `d`")
    producer, seq = value_of(members, "producer") or b"", value_of(members, "seq") or b""
    return ExportedEvent(int(n), position, kind, data, producer, seq)


def _read_end(members: dict[str, bytes]) -> OperationEnd:
    id, digest = value_of(members, "id") or b"", value_of(members, "sha256") or b""
    return OperationEnd(id.decode(), int(value_of(members, "events") or b"-1"), digest.decode())
