"""Lines are numbered and limited in length, and each byte is scanned once, for any division into chunks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.errors import TooLarge
from progress_broker.runtime.ndjson import MAX_AROUND_BYTES, LineBuffer
from tests.conftest import make_settings

LIMIT = 10


def read(chunks: list[bytes]) -> list[tuple[int, bytes]]:
    lines = LineBuffer(LIMIT)
    found = []
    for chunk in chunks:
        found += lines.feed(chunk)
        lines.check()
    return found + lines.end()


@given(st.lists(st.sampled_from([b"", b"a", b"\n", b"\r\n", b" ", b"bc", b"d\ne", b"f\n\ng"])))
def test_are_the_same_however_they_are_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    lines = [(number, line) for number, line in enumerate(whole.split(b"\n"), 1) if line.strip()]
    if max(len(line) for line in whole.split(b"\n")) > LIMIT:
        with pytest.raises(TooLarge):
            read(pieces)
    else:
        assert read(pieces) == lines
        assert read([whole]) == lines


class Counted(bytes):
    """A chunk that counts how many of its bytes are searched."""

    searched = 0

    def split(self, *args: object) -> list[bytes]:  # type: ignore[override]
        Counted.searched += len(self)
        return bytes(self).split(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_long_one_costs_no_more_than_its_bytes(size: int) -> None:
    Counted.searched, lines = 0, LineBuffer(100_000)
    for _ in range(100_000 // size):
        assert lines.feed(Counted(b"x" * size)) == []
        lines.check()
    assert Counted.searched == 100_000
    assert lines.feed(Counted(b"\n")) == [(1, b"x" * 100_000)]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nnext\n"])
def test_one_that_is_too_long_is_told_after_those_before(end: bytes) -> None:
    lines = LineBuffer(LIMIT)
    assert lines.feed(b"one\n\nthree\n" + b"x" * (LIMIT + 1) + end) == [(1, b"one"), (3, b"three")]
    with pytest.raises(TooLarge, match="line 4 is longer than 10 bytes"):
        lines.check()


def test_events_have_room_for_the_largest_payload_and_what_is_around_it() -> None:
    for sizes in ({"max_event_bytes": 50, "max_progress_bytes": 9}, {"max_progress_bytes": 100_000}):
        settings = make_settings(**sizes)
        lines = LineBuffer.of_events(settings)
        most = max(settings.max_event_bytes, settings.max_progress_bytes) + MAX_AROUND_BYTES
        assert len(lines.feed(b"x" * most + b"\n")) == 1
        lines.check()
        lines.feed(b"x" * (most + 1))
        with pytest.raises(TooLarge):
            lines.check()
