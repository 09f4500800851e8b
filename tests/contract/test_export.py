"""The format of exports, held to a file that was not written by this code."""

import json
from hashlib import sha256
from pathlib import Path

from progress_broker.transfer.files.reader import ExportReader
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import ExportedOperation, ExportHead, FileEnd, OperationEnd, OperationVoid

VECTOR = Path(__file__).with_name("export.ndjson").read_bytes()


def test_it_is_read_and_comes_out_the_same_when_it_is_written_again() -> None:
    reader, writer, lines = ExportReader(), ExportWriter(), list[bytes]()
    for part in (*reader.feed(VECTOR), *reader.close()):
        match part:
            case ExportHead():
                lines.append(writer.head(part))
            case ExportedOperation():
                lines.append(writer.operation(part))
            case OperationVoid(_, why):
                lines.append(writer.leave_out(why))
            case list():
                lines.append(writer.events(part))
            case OperationEnd():
                lines.append(writer.end()[0])
            case FileEnd():
                lines.append(writer.file_end())
    assert b"".join(lines) == VECTOR


def test_what_the_lines_mean() -> None:
    found = [*ExportReader().feed(VECTOR)]
    [first, _, second] = [part for part in found if isinstance(part, ExportedOperation)]
    assert (first.id, first.n, first.first_n, first.position) == ("import-42", 7, 5, b"1795959882901-0")
    assert first.fields[b"progress"] == b'{"current": 4, "total": 10, "percent": 40.0}'
    assert first.fields[b"producer:worker-7"] == b"7 1795959882901-0 7"
    assert first.fields[b"lease_ms"] == b"30000"
    assert first.indexes == b"kind:import\ntag:nightly\nmetadata:customer=42\n\nmetadata:customer=43"
    assert (second.fields[b"spec"], second.fields[b"producer:\xff"]) == (b"\xff", b"1 1-0 1")
    events = [event for part in found if isinstance(part, list) for event in part]
    assert [(event.n, event.type, event.seq) for event in events] == [
        *((1, b"status", b""), (3, b"progress", b"1"), (5, b"log", b"007"), (6, b"x.note", b""), (7, b"end", b"7")),
        (1, b"\xff", b""),
    ]
    assert events[1].data == b'{"current": 1e0, "total": 10, "percent": 10.0}'
    assert events[3].data == b'{"a":\n1}'


def test_digests_need_nothing_but_the_lines() -> None:
    of_lines, of_file = sha256(), sha256()
    for line in VECTOR.splitlines(keepends=True)[1:]:
        said = json.loads(line)
        match said["k"]:
            case "end":
                assert said["sha256"] == of_lines.hexdigest()
                of_file.update(of_lines.digest())
            case "eof":
                assert said["sha256"] == of_file.hexdigest()
            case "operation":
                of_lines = sha256(line)
            case _:
                of_lines.update(line)
