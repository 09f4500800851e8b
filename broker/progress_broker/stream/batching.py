"""Select and split the frames that are sent to a client."""

from collections.abc import Iterable, Iterator, Sequence

from progress_broker.model.event import END, PROGRESS, SNAPSHOT
from progress_broker.stream.frames import Frame

SLICE_BYTES = 16_384
"""How much is written at a time to a client that catches up. It may exceed the client's buffer by this much."""

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
