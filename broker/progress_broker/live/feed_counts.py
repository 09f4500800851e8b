"""Counts what the feeds report of all operations, whether somebody follows them or not."""

from collections.abc import Sequence

import orjson

from progress_broker.model.event import Event
from progress_broker.model.operation import TERMINAL
from progress_broker.runtime.tally import Tally


def count_events(tally: Tally, events: Sequence[Event]) -> None:
    """Count the events of one read of the feeds, and the operations that ended in it."""
    tally.feed_events += len(events)
    for event in events:
        if event.kind and (status := _status(event.data)) in TERMINAL:
            tally.count_end(status, event.kind.decode("utf-8", "replace"))


def _status(outcome: bytes) -> str:
    try:
        status: str = orjson.loads(outcome)["status"]
    except (orjson.JSONDecodeError, LookupError, TypeError):  # another program wrote it
        return ""
    return status
