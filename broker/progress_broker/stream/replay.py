"""Missed events, encoded once: after an interruption many clients come back together, and have missed the same."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from progress_broker.stream.batching import Types, slices, told
from progress_broker.stream.frames import Frame, bookmark_frame
from progress_broker.stream.outlet import Encoding, size

KEPT_S = 10.0
"""How long slices are kept at most: clients that were disconnected together come back together."""


class Reading(NamedTuple):
    """Which frames a client wants of an operation, and how. Clients with equal readings are sent the same bytes."""

    operation: str
    types: Types
    bookmark_every: int
    encoding: Encoding
    says_live: bool
    """Whether a bookmark follows the last frame, which says that this is all there is so far."""


class Slice(NamedTuple):
    """Frames that are sent together."""

    frames: int
    """How many there are, including those that the client does not want."""
    last: Frame
    data: Any
    """What to write to the outlet; None if the client wants none of them."""
    data_bytes: int
    kept_bytes: int
    """About how much memory it takes, for as long as it is kept."""


class Replays:
    """The slices that were sent last, of all operations. Clients that have missed the same share them, and so their
    buffers do. With more than `kept_bytes`, the oldest are dropped."""

    def __init__(self, kept_bytes: int = 0) -> None:
        self._kept_bytes = self._left_bytes = kept_bytes
        self._slices: dict[tuple[Frame, Frame, Reading], Slice] = {}

    async def run(self) -> None:
        """Drop the slices from time to time, until cancelled."""
        while True:
            await asyncio.sleep(KEPT_S)
            self._slices.clear()
            self._left_bytes = self._kept_bytes

    def __iter__(self) -> Iterator[Slice]:
        return iter(self._slices.values())

    def slice(self, frames: Sequence[Frame], start: int, reading: Reading) -> Slice:
        """Return the next slice of consecutive frames: the one that begins with the frame at `start`."""
        # A log that was written anew has other frames, although their numbers may be the same.
        key = frames[start], frames[-1], reading
        found = self._slices.get(key)
        if found is None:
            found = self._slices[key] = _encoded(frames, start, reading)
            self._left_bytes -= found.kept_bytes
            while self._left_bytes < 0:
                self._left_bytes += self._slices.pop(next(iter(self._slices))).kept_bytes
        return found


def _encoded(frames: Sequence[Frame], start: int, reading: Reading) -> Slice:
    operation, types, bookmark_every, encoding, says_live = reading
    part = next(iter(slices(frames[start:], 0)))
    last = part[-1]
    sent = told(operation, part, types, bookmark_every, live=False)
    if says_live and last is frames[-1]:
        sent = [*sent, bookmark_frame(operation, last.n, last.position, live=True)]
    data = encoding.encode(sent) if sent else None
    return Slice(len(part), last, data, size(data), sum(len(frame.wire) for frame in sent))
