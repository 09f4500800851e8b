"""NDJSON as it arrives: chunks of bytes become lines, each bounded and each byte looked at once. Without I/O."""

from progress_broker.errors import TooLarge
from progress_broker.settings import Settings

MAX_AROUND_BYTES = 1_024
"""What a line may take beside its event's payload: `type`, `producer`, `seq` and spaces."""


class LineBuffer:
    """Cuts chunks into numbered lines, of `limit` bytes each at most, without blank ones."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._number = 0
        self._too_long = 0

    @classmethod
    def of_events(cls, settings: Settings) -> "LineBuffer":
        """Return one for lines that are an event each."""
        return cls(max(settings.max_event_bytes, settings.max_progress_bytes) + MAX_AROUND_BYTES)

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Return the lines that a chunk completes, with their numbers, up to one that is too long: then `check`."""
        first, *others = chunk.split(b"\n")
        self._rest += first
        if not others:
            self._check_length(self._number + 1, len(self._rest))
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest = bytearray(others[-1])
        return self._numbered(lines)

    def end(self) -> list[tuple[int, bytes]]:
        """Return the last line, if it lacks its newline."""
        last, self._rest = bytes(self._rest), bytearray()
        return self._numbered([last])

    def check(self) -> None:
        """Raise `TooLarge` if a line is too long."""
        if self._too_long:
            raise TooLarge(f"line {self._too_long} is longer than {self._limit} bytes: send less in one event")

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
