"""Reads server-sent events (WHATWG HTML, 9.2.6), as this server sends them. No I/O happens here."""

from collections.abc import Iterator
from typing import NamedTuple

MOST_BYTES = 64 * 1024 * 1024
"""The largest event that is read: a snapshot with a hundred children of the largest size has less."""


class Message(NamedTuple):
    """One event. `id` is empty if it has none: then the position stays as it was."""

    id: str
    type: str
    data: bytes
    retry_ms: int | None
    """In how many milliseconds to come back, if the server has said so by now."""


class EventStreamReader:
    """Takes a stream in chunks, and gives its events. Chunks may end anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._retry_ms: int | None = None
        self._id = self._type = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the events that are complete with this chunk. Raises `ValueError` for one that is too large."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MOST_BYTES:
            raise ValueError(f"an event has more than {MOST_BYTES} bytes")
        for line in lines:
            if message := self._line(line.removesuffix(b"\r")):
                yield message

    def _line(self, line: bytes) -> Message | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self._retry_ms = int(value)
        return None

    def _dispatch(self) -> Message | None:
        data, id, type = self._data, self._id, self._type
        self._data, self._id, self._type = [], "", ""
        return Message(id, type or "message", b"\n".join(data), self._retry_ms) if data else None
