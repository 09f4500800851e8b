"""Reads the events of standard input in batches: as they arrive, and a file also twice, to check it first."""

import os
import stat
import sys
from collections.abc import Iterator

from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.model.entry import NewEvent, read_publish_request
from progress_broker.model.validation import read_json
from progress_broker.runtime.ndjson import LineBuffer
from progress_broker.settings import Settings
from progress_cli.input.envelopes import to_events

MAX_BATCH = 500
"""The most lines in one call: Redis runs a call without interruption."""
_CHUNK = 65_536
_AROUND_BYTES = 65_536
"""How much a line may have beside a progress and a result: the other fields of a snapshot."""

Batches = Iterator[tuple[str, list[NewEvent]]]
"""Entries that are stored together, all or none, each batch with the place to name if it is rejected."""


def read_batches(settings: Settings, *, check_file: bool) -> Batches:
    """Return the events of standard input. With `check_file`, a file is read to its end before its first event."""
    source = sys.stdin.fileno()
    if check_file and stat.S_ISREG(os.fstat(source).st_mode):
        start = os.lseek(source, 0, os.SEEK_CUR)
        for _ in _batches(source, settings):
            pass
        os.lseek(source, start, os.SEEK_SET)
    return _batches(source, settings)


def at_line(place: str, error: BrokerError) -> BrokerError:
    """Return the error with its place before its text."""
    return error.__class__(f"{place}{error.detail}", field=error.field)


def _batches(source: int, settings: Settings) -> Batches:
    """Yield the events; events that arrive together form a batch.

    A bad line raises an error after the events before it were yielded.
    """
    ended = False
    for lines in _chunks(source, settings):
        entries: list[NewEvent] = []
        for number, line in lines:
            try:
                read = [read_publish_request(it, settings) for it in to_events(read_json(line))]
                if ended and read:
                    raise InvalidInput("nothing can follow the `end` event", field="type")
            except BrokerError as error:
                if entries:
                    yield f"up to line {number - 1}: ", entries
                raise at_line(f"line {number}: ", error) from None
            entries += read
            ended = ended or any(entry.type == "end" for entry in read)
            if len(entries) >= MAX_BATCH:
                yield f"up to line {number}: ", entries
                entries = []
        if entries:
            yield f"up to line {lines[-1][0]}: ", entries


def _chunks(source: int, settings: Settings) -> Iterator[list[tuple[int, bytes]]]:
    """Yield the lines with their numbers as they arrive; lines that arrive together are one list."""
    lines = LineBuffer(settings.max_event_bytes + settings.max_progress_bytes + _AROUND_BYTES)
    while chunk := os.read(source, _CHUNK):
        if found := lines.feed(chunk):
            yield found
        lines.check()
    if found := lines.end():
        yield found
