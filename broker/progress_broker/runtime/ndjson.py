"""Splits incoming NDJSON into lines. The length of a line is limited, and each byte is scanned once. No I/O."""

from progress_broker.errors import TooLarge
from progress_broker.settings import Settings

MAX_AROUND_BYTES = 1_024
"""How much a line may add to its event's data: `type`, `producer`, `seq` and spaces."""


class LineBuffer:
    """Splits chunks into numbered lines of at most `limit` bytes each; blank lines are left out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._number = 0
        self._too_long = 0

    @classmethod
    def of_events(cls, settings: Settings) -> "LineBuffer":
        """Return a buffer for lines with one event each."""
        return cls(max(settings.max_event_bytes, settings.max_progress_bytes) + MAX_AROUND_BYTES)

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Return the lines that a chunk completes, with their numbers.

        If a line is too long, it and later lines are not returned; call `check` to raise the error.
        """
        first, *others = chunk.split(b"\n")
        self._rest += first
        if not others:
            self._check_length(self._number + 1, len(self._rest))
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest = bytearray(others[-1])
        return self._numbered(lines)

    def end(self) -> list[tuple[int, bytes]]:
        """Return the last line with its number, if the input ended without a newline; else an empty list."""
        last, self._rest = bytes(self._rest), bytearray()
        return self._numbered([last])

    def check(self) -> None:
        """Raise `TooLarge` if a line is too long."""
        if self._too_long:
            raise TooLarge(f"line {self._too_long} is longer than {self._limit} bytes: send smaller events")

    def _numbered(self, lines: list[bytes]) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for number, line in enumerate(lines, self._number + 1):
            if self._check_length(number, len(line)):
                return found
            if line.strip():
                found.append((number, line))
        self._number += len(lines)
        self._check_length(self._number + 1, len(self._rest))
        return found

    def _check_length(self, number: int, length: int) -> bool:
        if length > self._limit:
            self._too_long = number
        return length > self._limit
