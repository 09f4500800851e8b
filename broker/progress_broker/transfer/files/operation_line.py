"""The line of an operation in an export: the fields of its hash in Redis as members, in a fixed order, and back."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from progress_broker.model.operation import is_id
from progress_broker.model.position import is_canonical
from progress_broker.transfer.files.values import (
    data_of,
    from_base64,
    json_member,
    members_of,
    number_member,
    text_member,
    text_of,
    value_of,
)
from progress_broker.transfer.format import ExportedOperation

Member = Callable[[bytes, bytes], bytes]

_MEMBERS: Final[Mapping[bytes, Member]] = {
    b"spec": json_member,
    b"created_metadata": json_member,
    b"metadata": json_member,
    b"indexes": text_member,
    b"status": text_member,
    b"attempt": number_member,
    b"worker": text_member,
    b"traceparent": text_member,
    b"created": number_member,
    b"started": number_member,
    b"finished": number_member,
    b"cancel": json_member,
    b"cancel_at": number_member,
    b"progress": json_member,
    b"outcome": json_member,
    b"counts": text_member,
    b"stage_counts": text_member,
    b"has_children": number_member,
    b"first_position": text_member,
    b"archived": number_member,
    b"curve_ms": number_member,
}
"""The members between `id` and `n`, which are fields of the hash, in their order. What is missing here belongs to the
server that has the operation: how long it keeps it, until when its worker may be silent."""
_LIMITS: Final = (b"history_length", b"feed_length", b"lease_ms", b"retention_asked_ms", b"idle_asked_ms")
"""The members of `limits`: what the operation was created with."""
_PRODUCER: Final = b"producer:"


def portable(fields: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the fields of a hash that an export has: those that do not belong to the server."""
    others = (*_MEMBERS, *_LIMITS, b"n", b"position")
    return {name: value for name, value in fields.items() if name in others or name.startswith(_PRODUCER)}


def write_operation(operation: ExportedOperation) -> bytes:
    """Return an operation's line, with its line feed."""
    fields = operation.fields
    members = [member(name, fields[name]) for name, member in _MEMBERS.items() if name in fields]
    limits = b"".join(number_member(name, fields[name]) for name in _LIMITS if name in fields)[1:]
    where = b',"n":%d,"first_n":%d' % (operation.n, operation.first_n) + text_member(b"position", operation.position)
    return b'{"k":"operation","id":"%b"%b%b%b,"limits":{%b}}\n' % (
        operation.id.encode(),
        b"".join(members),
        _producers(fields),
        where,
        limits,
    )


def read_operation(line: bytes) -> ExportedOperation:
    """Return the operation of a line; raise `ValueError` that says what is wrong with it."""
    members = members_of(line)
    fields: dict[bytes, bytes] = {}
    for name, member in _MEMBERS.items():
        value = (data_of if member is json_member else value_of)(members, name.decode())
        if value is not None:
            fields[name] = value
    limits = members_of(members.get("limits", b"{}"))
    fields |= {name: value for name in _LIMITS if (value := value_of(limits, name.decode())) is not None}
    for producer, last in members_of(members.get("producers", b"{}")).items():
        fields[_PRODUCER + producer.encode()] = text_of(last)
    for producer, last in members_of(members.get("producers64", b"{}")).items():
        fields[_PRODUCER + from_base64(orjson.dumps(producer))] = from_base64(last)
    id, position = text_of(members.get("id", b"null")).decode(), value_of(members, "position") or b""
    n, first_n = _count(members, "n"), _count(members, "first_n")
    _check(id, fields, n, position)
    fields |= {b"n": b"%d" % n, b"position": position}
    return ExportedOperation(id, fields, fields.get(b"indexes", b""), n, first_n, position)


def _check(id: str, fields: Mapping[bytes, bytes], n: int, position: bytes) -> None:
    if not is_id(id):
        raise ValueError(f"{id[:100]!r} is no id of an operation")
    if missing := [name.decode() for name in (b"spec", b"status", b"attempt", b"created") if name not in fields]:
        raise ValueError(f"operation {id} has no {' and no '.join(missing)}")
    if not is_canonical(position):
        raise ValueError(f"operation {id} has no valid position")
    if n < 1:
        raise ValueError(f"operation {id} has no events")


def _count(members: Mapping[str, bytes], name: str) -> int:
    digits = value_of(members, name)
    if digits is None or not digits.isdigit() or len(digits) > 15:
        raise ValueError(f"{name} is no whole number")
    return int(digits)


def _producers(fields: Mapping[bytes, bytes]) -> bytes:
    """Return the members with what each producer published last, ordered by name: Redis has them in any order."""
    texts, others = [], []
    for field in sorted(name for name in fields if name.startswith(_PRODUCER)):
        name = field.removeprefix(_PRODUCER)
        try:
            texts.append(b",%b:%b" % (orjson.dumps(name.decode()), orjson.dumps(fields[field].decode())))
        except UnicodeDecodeError:
            others.append(_base64_pair(name, fields[field]))
    written = b',"producers":{%b}' % b"".join(texts)[1:] if texts else b""
    return written + (b',"producers64":{%b}' % b"".join(others)[1:] if others else b"")


def _base64_pair(name: bytes, value: bytes) -> bytes:
    return b',"%b":"%b"' % (b64encode(name), b64encode(value))
