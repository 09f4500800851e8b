"""Writes an export, part by part. No I/O happens here: the caller writes the bytes."""

from collections.abc import Sequence
from hashlib import sha256

import orjson

from progress_broker.transfer.files.operation_line import write_operation
from progress_broker.transfer.files.values import json_member, number_member, text_member
from progress_broker.transfer.format import (
    FORMAT,
    VERSION,
    ExportedEvent,
    ExportedOperation,
    ExportHead,
    FileEnd,
    OperationEnd,
)

_ZERO = ord("0")


class ExportWriter:
    """Returns the lines of an export: `head`; for each operation `operation`, `events` and `end`; then `file_end`."""

    def __init__(self) -> None:
        self._operations = self._events = 0
        self._of_file, self._of_operation = sha256(), sha256()
        self._id, self._count = "", 0

    def head(self, head: ExportHead) -> bytes:
        """Return the first line."""
        source = {"release": head.release, "schema": head.schema, "prefix": head.prefix}
        line = {"format": FORMAT, "version": VERSION, "exported_at": head.exported_at, "source": source}
        return _line(line | {"query": head.query, "redacted": head.redacted})

    def operation(self, operation: ExportedOperation) -> bytes:
        """Return the line of an operation's state. It leaves out one that was begun and not ended."""
        left_out = self.leave_out() if self._id else b""
        line = write_operation(operation)
        self._id, self._count, self._of_operation = operation.id, 0, sha256(line)
        return left_out + line

    def events(self, events: Sequence[ExportedEvent]) -> bytes:
        """Return the lines of events, in the order of `n`."""
        lines = write_events(events)
        self._of_operation.update(lines)
        self._count += len(events)
        return lines

    def end(self) -> tuple[bytes, OperationEnd]:
        """Return the line that ends an operation, and what it says."""
        end = OperationEnd(self._id, self._count, self._of_operation.hexdigest())
        self._of_file.update(self._of_operation.digest())
        self._operations, self._events, self._id = self._operations + 1, self._events + self._count, ""
        return _line({"k": "end"} | end._asdict()), end

    def leave_out(self, why: str = "it was deleted while it was read") -> bytes:
        """Return the line that takes back the operation that was begun."""
        id, self._id = self._id, ""
        return _line({"k": "void", "id": id, "why": why})

    def file_end(self) -> bytes:
        """Return the last line."""
        return _line({"k": "eof"} | FileEnd(self._operations, self._events, self._of_file.hexdigest())._asdict())


def write_events(events: Sequence[ExportedEvent]) -> bytes:
    """Return the lines of events, with their line feeds.

    Most of an export are these lines. So those as our scripts store them are written with few calls, and what many of
    them share is made once.
    """
    lines: list[bytes] = []
    shared: dict[tuple[bytes, bytes], bytes] = {}
    for event in events:
        n, position, kind, data, producer, seq = event
        try:
            names = shared[kind, producer]
        except KeyError:
            named = text_member(b"producer", producer) if producer else b""
            names = shared[kind, producer] = text_member(b"t", kind) + named
        try:
            orjson.loads(data)
            plain = b"\n" not in data and (not producer or (seq.isdigit() and seq[0] != _ZERO and len(seq) <= 16))
        except orjson.JSONDecodeError:
            plain = False
        if not plain:
            numbered = number_member(b"seq", seq) if producer else b""
            members = (names, numbered, json_member(b"d", data))
            lines.append(b'{"k":"event","n":%d,"p":"%b"%b%b%b}\n' % (n, position, *members))
        elif producer:
            lines.append(b'{"k":"event","n":%d,"p":"%b"%b,"seq":%b,"d":%b}\n' % (n, position, names, seq, data))
        else:
            lines.append(b'{"k":"event","n":%d,"p":"%b"%b,"d":%b}\n' % (n, position, names, data))
    return b"".join(lines)


def _line(value: object) -> bytes:
    return orjson.dumps(value) + b"\n"
