from progress_broker.stream.batching import SLICE_BYTES, slices
from progress_broker.stream.frames import Frame, make_frame
from tests.broker.harness import event, frame


def large(n: int) -> Frame:
    return make_frame(event(n, data=b'"' + b"x" * (SLICE_BYTES // 3) + b'"'))


def cut(frames: list[Frame], n: int) -> list[list[int]]:
    return [[frame.n for frame in some] for some in slices(frames, n)]


def test_one_frame_is_one_slice_unless_it_was_had() -> None:
    assert cut([frame(3)], 2) == [[3]]
    assert cut([frame(3, "end")], 2) == [[3]]
    assert cut([frame(3)], 3) == []
    assert cut([], 3) == []


def test_a_slice_is_bounded_in_bytes() -> None:
    assert cut([large(n) for n in range(1, 9)], 1) == [[2, 3, 4], [5, 6, 7], [8]]
    assert cut([frame(n) for n in range(1, 9)], 0) == [[1, 2, 3, 4, 5, 6, 7, 8]]


def test_nothing_follows_the_end() -> None:
    assert cut([frame(1), frame(2, "end"), frame(3)], 0) == [[1, 2]]
