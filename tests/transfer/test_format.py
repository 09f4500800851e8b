"""What an export says of operations and events comes back as it was, byte by byte; what is wrong with it is told."""

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from progress_broker.transfer.files.reader import MOST_BYTES, DamagedExport, ExportReader, Part
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import (
    ExportedEvent,
    ExportedOperation,
    ExportHead,
    FileEnd,
    OperationEnd,
    OperationVoid,
)

HEAD = ExportHead("2026-11-30T14:05:00.000Z", "0.1.0", 2, "pb", {"kind": ["import"]})

some_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
data = (
    st.builds(lambda value, indent: json.dumps(value, indent=indent).encode(), some_json, st.sampled_from([None, 1]))
    | st.binary()
    | st.sampled_from(
        [b"", b"{}", b"1e5", b"1E400", b"NaN", b'{"a":1,"a":2}', b'{"a":1},"x":2', b"[" * 2000, b'"\\ud800"']
    )
)
texts = st.text().map(str.encode) | st.binary() | st.sampled_from([b"log", b"end", b"worker-1:4", b"a b@c"])
numbers = st.integers(0, 10**14).map(lambda number: b"%d" % number) | st.sampled_from(
    [b"", b"007", b"-1", b"1.5", b"\xff"]
)


@st.composite
def operations(draw: st.DrawFn) -> tuple[ExportedOperation, list[ExportedEvent]]:
    ns = sorted(draw(st.sets(st.integers(1, 10**9), min_size=1, max_size=8)))
    events = []
    for n in ns:
        producer = draw(st.just(b"") | texts)
        seq = draw(numbers) if producer else b""
        events.append(ExportedEvent(n, b"1732150000000-%d" % n, draw(texts), draw(data), producer, seq))
    fields = {b"status": b"running", b"attempt": b"1", b"created": b"1732150000000", b"spec": draw(data)}
    fields |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys((b"progress", b"outcome", b"cancel", b"metadata", b"created_metadata"), data),
                **dict.fromkeys((b"worker", b"indexes", b"counts", b"stage_counts", b"traceparent", b"status"), texts),
                **dict.fromkeys((b"archived", b"curve_ms", b"lease_ms", b"started", b"history_length"), numbers),
            },
        )
    )
    fields |= {b"producer:" + name: value for name, value in draw(st.dictionaries(texts, texts, max_size=3)).items()}
    fields |= {b"n": b"%d" % ns[-1], b"position": events[-1].position}
    indexes = fields.get(b"indexes", b"")
    return ExportedOperation("import-42", fields, indexes, ns[-1], ns[0], events[-1].position), events


def written(*all: tuple[ExportedOperation, list[ExportedEvent]]) -> bytes:
    writer = ExportWriter()
    text = writer.head(HEAD)
    for operation, events in all:
        text += writer.operation(operation) + writer.events(events[:1]) + writer.events(events[1:]) + writer.end()[0]
    return text + writer.file_end()


def read(text: bytes, size: int = 0, *, partial: bool = False) -> list[Part]:
    return list(parts(ExportReader(partial=partial), text, size or max(1, len(text))))


def parts(reader: ExportReader, text: bytes, size: int) -> Iterator[Part]:
    for at in range(0, len(text), size):
        yield from reader.feed(text[at : at + size])
    yield from reader.close()


def events_of(read: list[Part]) -> list[ExportedEvent]:
    return [event for part in read if isinstance(part, list) for event in part]


@settings(max_examples=60)
@given(st.lists(operations(), max_size=2), st.integers(1, 200))
def test_what_is_written_is_read_whatever_it_is_made_of(
    all: list[tuple[ExportedOperation, list[ExportedEvent]]], size: int
) -> None:
    text = written(*all)
    for line in text.splitlines(keepends=False):
        orjson.loads(line)
    found = read(text, size)
    assert found[0] == HEAD._replace(redacted=[])
    assert [part for part in found if isinstance(part, ExportedOperation)] == [operation for operation, _ in all]
    assert events_of(found) == [event for _, events in all for event in events]
    assert isinstance(found[-1], FileEnd)
    assert (found[-1].operations, found[-1].events) == (len(all), sum(len(events) for _, events in all))
    again = [(operation, events) for operation, events in all]
    assert written(*again) == text


EVENT = ExportedEvent(1, b"1732150000000-1", b"log", b'{"message": "hi",  "n": 1e5}', b"w", b"7")
LAST = ExportedEvent(2, b"1732150000001-0", b"end", b'{"status":"succeeded"}')
FIELDS = {b"spec": b'{"kind":"job"}', b"status": b"succeeded", b"attempt": b"1", b"created": b"1732150000000"}
FIELDS |= {b"n": b"2", b"position": LAST.position, b"indexes": b"kind:job"}
OPERATION = ExportedOperation("a", FIELDS, b"kind:job", 2, 1, LAST.position)
FILE = written((OPERATION, [EVENT, LAST]), (OPERATION._replace(id="b"), [EVENT, LAST]))


def test_lines_of_other_programs_are_read_with_the_bytes_of_their_data() -> None:
    """Members in another order and with spaces, members that nobody knows, and lines of another kind."""
    lines = FILE.splitlines(keepends=True)
    shuffled = b'{ "d" : {"message": "hi",  "n": 1e5} ,"seq": 7, "producer":"\\u0077", "new":[{}], '
    shuffled += b'"t":"log", "p": "1732150000000-1","n":1, "k":"event" }\n'
    text = b"".join(
        (lines[0], lines[1].replace(b'{"k"', b'{"new": {"a": 1}, "k"'), shuffled, b'{"k":"comment"}\n', lines[3])
    )
    reader = ExportReader()
    found = list(reader.feed(text))
    assert [part for part in found if isinstance(part, ExportedOperation)] == [OPERATION]
    assert events_of(found) == [EVENT, LAST]


def test_an_operation_that_was_taken_back_does_not_count() -> None:
    writer = ExportWriter()
    text = writer.head(HEAD) + writer.operation(OPERATION) + writer.events([EVENT]) + writer.leave_out()
    text += (
        writer.operation(OPERATION._replace(id="b"))
        + writer.events([EVENT, LAST])
        + writer.end()[0]
        + writer.file_end()
    )
    found = read(text)
    assert OperationVoid("a", "it was deleted while it was read") in found
    assert [part.id for part in found if isinstance(part, OperationEnd)] == ["b"]
    assert found[-1]._replace(sha256="") == FileEnd(1, 2, "")  # type: ignore[union-attr]


def test_a_file_that_was_cut_anywhere_is_told_apart_from_a_whole_one() -> None:
    whole = [part for part in read(FILE) if isinstance(part, OperationEnd)]
    assert [end.id for end in whole] == ["a", "b"]
    ends = [found.end() for found in re.finditer(rb'\{"k":"end".*\}', FILE)]
    for size in range(len(FILE) - 1):
        with pytest.raises(DamagedExport, match=r"cut short|empty|no export|damaged: line \d"):
            read(FILE[:size])
        if size > FILE.index(b"\n"):
            found = read(FILE[:size], partial=True)
            known = sum(end <= size for end in ends)
            assert [part for part in found if isinstance(part, OperationEnd)] == whole[:known]
    assert read(FILE[:-1]) == read(FILE)  # only its last line feed is missing


def test_a_byte_that_was_changed_anywhere_is_noticed() -> None:
    for at in range(FILE.index(b"\n") + 1, len(FILE)):
        changed = FILE[:at] + bytes([FILE[at] ^ 1]) + FILE[at + 1 :]
        with pytest.raises(DamagedExport):
            print(read(changed))


@pytest.mark.parametrize(
    ("text", "why"),
    {
        "nothing": (b"", "it is empty"),
        "a log": (b"hello\n", "no export"),
        "other JSON": (b'{"format":"x"}\n', "no export"),
        "a later version": (
            FILE.replace(b'"version":1', b'"version":2'),
            "version 2, and this release reads version 1",
        ),
        "no id": (FILE.replace(b'"id":"a"', b'"id":"a/b"', 1), "line 2 is wrong: 'a/b' is no id"),
        "no spec": (FILE.replace(b'"spec"', b'"sp"', 1), "line 2 is wrong: operation a has no spec"),
        "a position": (
            FILE.replace(b"1732150000000-1", b"173215000000000000000000-1", 1),
            "line 3 is wrong: .*position",
        ),
        "more after the end": (FILE + b"{}\n", "line 11: something follows the end"),
        "a line too long": (FILE[: FILE.index(b"\n") + 1] + b" " * (MOST_BYTES + 1), "line 2 is longer than 16 MiB"),
        "an order": (FILE.replace(b'"n":2,"p"', b'"n":1,"p"', 1), "line 4 is wrong: event 1 is not after event 1"),
        "a lost end": (re.sub(rb'\{"k":"end","id":"a".*\n', b"", FILE), "operation a has no end"),
        "a lost operation": (
            re.sub(rb'(?s)\{"k":"operation","id":"b".*(\{"k":"eof")', rb"\1", FILE),
            "has 1 operations and 2",
        ),
    }.values(),
)
def test_what_is_wrong_is_told_with_its_line(text: bytes, why: str) -> None:
    with pytest.raises(DamagedExport, match=why):
        read(text)


def test_partial_takes_the_whole_operations_and_says_what_it_left_out() -> None:
    damaged = FILE.replace(b"hi", b"ho", 1)
    reader = ExportReader(partial=True)
    found: list[Any] = list(parts(reader, damaged, 50))
    assert [part for part in found if isinstance(part, OperationEnd | OperationVoid)] == [
        OperationVoid("a", "operation a was changed or lacks events: its digest does not match"),
        read(FILE)[-2],
    ]
    assert len(reader.damage) == 1
