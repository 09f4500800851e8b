"""Exports without what nobody else should see: parts are removed, and names are replaced."""

import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from hashlib import blake2s
from typing import Any

import orjson

from progress_broker.model.metadata import FIELD, indexed
from progress_broker.transfer.endpoints import OperationCopy, OperationSource
from progress_broker.transfer.files.json_path import JsonPath
from progress_broker.transfer.format import ExportedEvent, ExportedOperation, ExportHead

ANONYMISED = "anonymised"
"""In `redacted` of a head: names were replaced."""
_DATA = (b"progress", b"outcome", b"cancel", b"metadata", b"created_metadata")
_PRODUCER = b"producer:"
_NAMES = {b"log": ("message",), b"progress": ("message",), b"status": ("by", "worker"), b"child": ("title",)}
"""Members of the data of events that are replaced, by the event's type."""
_INDEX = f"{FIELD}:".encode()

Change = Callable[[Any], bool]
"""Changes a JSON value, and returns whether it did."""


class RedactedSource:
    """The operations of another source, without parts of their data."""

    def __init__(self, source: OperationSource, paths: Sequence[str], *, anonymise: bool) -> None:
        """`paths` are removed from the data of events, from their sums in the state, and from metadata.

        With `anonymise`, owners, titles, workers, who cancelled, messages, producers and values of metadata are
        replaced by a code. The same text has the same code in one export, and another one in the next.
        """
        self._source, self._paths = source, paths
        self._removals = [JsonPath(path) for path in paths]
        self._code = Code() if anonymise else None

    async def head(self) -> ExportHead:
        """Return the head, which tells what was removed."""
        head = await self._source.head()
        told = [*head.redacted, *self._paths, *([ANONYMISED] if self._code is not None else [])]
        return head._replace(redacted=told)

    async def operations(self) -> AsyncGenerator[OperationCopy]:
        """Yield the operations."""
        async with aclosing(self._source.operations()) as copies:
            async for copy in copies:
                yield _RedactedCopy(copy, self)

    def operation(self, operation: ExportedOperation) -> ExportedOperation:
        """Return an operation's state without what is removed."""
        fields = dict(operation.fields)
        for name in _DATA:
            if name in fields:
                kind = b"metadata" if name.endswith(b"metadata") else b"status" if name == b"cancel" else name
                fields[name] = self._changed(kind, fields[name])
        if self._code is not None:
            fields[b"spec"] = _rewritten(fields[b"spec"], self._code.members("owner", "title"))
            if b"worker" in fields:
                fields[b"worker"] = self._code.of(fields[b"worker"])
            for name in [name for name in fields if name.startswith(_PRODUCER)]:
                fields[_PRODUCER + self._code.of(name.removeprefix(_PRODUCER))] = fields.pop(name)
        indexes = self._indexes(operation.indexes, fields)
        if b"indexes" in fields:
            fields[b"indexes"] = indexes
        return operation._replace(fields=fields, indexes=indexes)

    def event(self, event: ExportedEvent) -> ExportedEvent:
        """Return an event without what is removed."""
        producer = self._code.of(event.producer) if self._code is not None and event.producer else event.producer
        return event._replace(data=self._changed(event.type, event.data), producer=producer)

    def _changed(self, kind: bytes, data: bytes) -> bytes:
        changes: list[Change] = [path.remove for path in self._removals]
        if self._code is not None:
            if kind == b"metadata":
                changes.append(self._code.values)
            elif kind in (b"end", b"outcome"):
                changes.append(self._code.cause)
            else:
                changes.append(self._code.members(*_NAMES.get(kind, ())))
        return _rewritten(data, *changes)

    def _indexes(self, indexes: bytes, fields: dict[bytes, bytes]) -> bytes:
        """Return the lines of an operation's indexes: of metadata those that it still has, each as it is now."""
        created, separator, changed = indexes.partition(b"\n\n")
        spec = _value(fields[b"spec"])
        owner = spec.get("owner") if isinstance(spec, dict) else None
        lines = []
        for line in created.split(b"\n"):
            if line.startswith(b"owner:") and owner:
                line = b"owner:" + str(owner).encode()
            if not line.startswith(_INDEX):
                lines.append(line)
        lines += _lines_of(fields.get(b"created_metadata"))
        parts = [b"\n".join(line for line in lines if line)]
        if separator:
            known = set(lines)
            now = [line for line in _lines_of(fields.get(b"metadata")) if line not in known]
            kept = [line for line in changed.split(b"\n") if line and not line.startswith(_INDEX)]
            parts.append(b"\n".join([*kept, *now]))
        return b"\n\n".join(part for part in parts if part)


class _RedactedCopy:
    def __init__(self, copy: OperationCopy, rules: RedactedSource) -> None:
        self.operation = rules.operation(copy.operation)
        self._copy, self._rules = copy, rules

    async def events(self) -> AsyncGenerator[Sequence[ExportedEvent]]:
        async with aclosing(self._copy.events()) as parts:
            async for part in parts:
                yield [self._rules.event(event) for event in part]


class Code:
    """Replaces texts. The same text has the same code."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)

    def of(self, text: bytes) -> bytes:
        """Return the code of a text."""
        return blake2s(text, key=self._key, digest_size=6).hexdigest().encode()

    def members(self, *names: str) -> Change:
        """Return what replaces these members of an object, if they are texts."""

        def change(value: Any) -> bool:
            found = [name for name in names if isinstance(value, dict) and isinstance(value.get(name), str)]
            for name in found:
                value[name] = self._text(value[name])
            return bool(found)

        return change

    def cause(self, outcome: Any) -> bool:
        """Replace who caused an error."""
        return isinstance(outcome, dict) and self.members("by")(outcome.get("error"))

    def values(self, value: Any) -> bool:
        """Replace all values in an object, however deep; null stays."""
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, list):
            items = enumerate(value)
        changed = False
        for name, inner in list(items):
            if isinstance(inner, dict | list):
                changed = self.values(inner) or changed
            elif inner is not None:
                value[name] = self._text(inner if isinstance(inner, str) else orjson.dumps(inner).decode())
                changed = True
        return changed

    def _text(self, text: str) -> str:
        return self.of(text.encode("utf-8", "surrogatepass")).decode()


def _rewritten(data: bytes, *changes: Change) -> bytes:
    """Return JSON with changes; without any, its bytes stay as they are."""
    value = _value(data)
    changed = [change(value) for change in changes]
    return orjson.dumps(value) if True in changed else data


def _value(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _lines_of(metadata: bytes | None) -> list[bytes]:
    value = None if metadata is None else _value(metadata)
    return [_INDEX + pair.encode() for pair in indexed(value)] if isinstance(value, dict) else []
