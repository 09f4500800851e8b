"""Select and split the frames that are sent to a client."""

from collections.abc import Iterable, Iterator, Sequence

from progress_broker.model.event import END, PROGRESS, SNAPSHOT
from progress_broker.stream.frames import Frame, bookmark_frame

SLICE_BYTES = 16_384
"""How much is written at a time to a client that catches up. It may exceed the client's buffer by this much."""

BOOKMARK_EVERY = 100
"""A client that wants few types is told a new position about once in so many events, or more often if few are kept."""

Types = frozenset[bytes] | None


def conflate(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames without each `progress` that is directly followed by another one: only the newest is needed."""
    kept: list[Frame] = []
    for frame in frames:
        if kept and frame.type == PROGRESS and kept[-1].type == PROGRESS:
            kept[-1] = frame
        else:
            kept.append(frame)
    return kept


def wanted(frames: Sequence[Frame], types: Types) -> Sequence[Frame]:
    """Return the frames of these types, and every `snapshot` and `end`."""
    if types is None:
        return frames
    return [frame for frame in frames if frame.type in types or frame.type == END or frame.type == SNAPSHOT]


def bookmark_every(history_length: int) -> int:
    """Return how many events may pass a client before it is told a new position, so that the old one is still kept."""
    return max(1, min(BOOKMARK_EVERY, history_length // 2))


def told(operation: str, frames: Sequence[Frame], types: Types, every: int, *, live: bool) -> Sequence[Frame]:
    """Return the frames of these types, and after about `every` events a bookmark after them.

    Without it, a client that wants few types would keep an old position, and be told of a reset for events that it does
    not want. Where a bookmark is sent depends on the numbers of the frames alone, so all clients with these types get
    the same bytes.
    """
    kept = wanted(frames, types)
    if types is None or (kept and kept[-1] is frames[-1]):
        return kept
    first, last = frames[0].n - 1, frames[-1]
    if first // every == last.n // every:
        return kept
    return [*kept, bookmark_frame(operation, last.n, last.position, live=live)]


def slices(frames: Sequence[Frame], n: int) -> Iterable[Sequence[Frame]]:
    """Return the frames after the n-th, in slices. If there is an `end`, it is the last frame of the last slice."""
    if len(frames) == 1 and frames[0].n > n:  # the usual case for live events
        return (frames,)
    return _slices(frames, n)


def _slices(frames: Iterable[Frame], n: int) -> Iterator[Sequence[Frame]]:
    part: list[Frame] = []
    size = 0
    for frame in frames:
        if frame.n <= n:
            continue
        part.append(frame)
        size += len(frame.wire)
        if size >= SLICE_BYTES or frame.type == END:
            yield part
            if frame.type == END:
                return
            part, size = [], 0
    if part:
        yield part
