"""What a client is sent of a run of frames."""

from collections.abc import Iterable, Iterator, Sequence

from progress_broker.model.event import END, PROGRESS, SNAPSHOT
from progress_broker.stream.frames import Frame

SLICE_BYTES = 16_384
"""Written at a time to a client that catches up; by so much it may get more than it has room for."""

Types = frozenset[bytes] | None


def conflate(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames without each `progress` that another follows directly: state, of which the newest is enough."""
    kept: list[Frame] = []
    for frame in frames:
        if kept and frame.type == PROGRESS and kept[-1].type == PROGRESS:
            kept[-1] = frame
        else:
            kept.append(frame)
    return kept


def wanted(frames: Sequence[Frame], types: Types) -> Sequence[Frame]:
    """Return the frames of these types. A `snapshot` and the `end` always pass."""
    if types is None:
        return frames
    return [frame for frame in frames if frame.type in types or frame.type == END or frame.type == SNAPSHOT]


def slices(frames: Sequence[Frame], n: int) -> Iterable[Sequence[Frame]]:
    """Return what comes after the n-th in slices, the last of which ends with the `end` if there is one."""
    if len(frames) == 1 and frames[0].n > n:  # as nearly all that is live comes
        return (frames,)
    return _slices(frames, n)


def _slices(frames: Iterable[Frame], n: int) -> Iterator[Sequence[Frame]]:
    some: list[Frame] = []
    size = 0
    for frame in frames:
        if frame.n <= n:
            continue
        some.append(frame)
        size += len(frame.wire)
        if size >= SLICE_BYTES or frame.type == END:
            yield some
            if frame.type == END:
                return
            some, size = [], 0
    if some:
        yield some
