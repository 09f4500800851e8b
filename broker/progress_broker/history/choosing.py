"""Which events of a history are told: by type, by how bad a log line is, by a text in them."""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import orjson

from progress_broker.model.event import END, Event
from progress_broker.model.payloads import Level

LEVELS: tuple[str, ...] = get_args(Level)
"""From the least to the worst."""

_LOG = b"log"


class Chosen(NamedTuple):
    """What is told. The `end` always is, so that a reader sees it."""

    types: frozenset[bytes] | None = None
    level: str | None = None
    """Log lines that are as bad, or worse. Other events are told as well."""
    text: str = ""
    """A part of a text in the event's data, in capital or small letters."""

    def has(self, event: Event) -> bool:
        """Return whether an event is told."""
        if event.type == END:
            return True
        if self.types is not None and event.type not in self.types:
            return False
        if self.level is None and not self.text:
            return True
        try:
            data = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            return False
        if self.level is not None and event.type == _LOG and not _is_as_bad(data, self.level):
            return False
        return not self.text or any(self.text.casefold() in text.casefold() for text in _texts(data))


def _is_as_bad(data: Any, level: str) -> bool:
    given = data.get("level", "info") if isinstance(data, dict) else "info"
    return given in LEVELS and LEVELS.index(given) >= LEVELS.index(level)


def _texts(data: Any) -> Iterator[str]:
    """Yield the texts in a value of JSON, but for names of members."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value)
