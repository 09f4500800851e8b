"""What a command writes becomes lines as a terminal would show them, and lines become readings and parts."""

import re
import time
from typing import Any

import pytest

from progress_workers import InvalidInput
from progress_workers.processes.bars.parts import Parts
from progress_workers.processes.bars.patterns import make_pattern
from progress_workers.processes.bars.readings import Reading, read
from progress_workers.processes.bars.rows import Rows
from progress_workers.processes.row import MAX_CHARS
from progress_workers.processes.terminal import MAX_ESCAPE_CHARS, MAX_ROWS, Line, Terminal


def fed(terminal: Terminal, said: bytes, step: int) -> list[Line]:
    found = []
    for start in range(0, len(said), step):
        found += terminal.feed(said[start : start + step])
    return [*found, *terminal.feed(b"", final=True)]


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    ("said", "lines"),
    [
        (b"", []),
        (b"one\ntwo\n", [("one", False), ("two", False)]),
        (b"no newline", [("no newline", False)]),
        (b"dos\r\ntwice\r\r\n\n", [("dos", False), ("twice", False), ("", False)]),
        (b"\r1/3\r2/3\r3/3\ndone\n", [("3/3", True), ("done", False)]),
        (b"1/3\r2/3\r3/3\r\n", [("3/3", True)]),
        (b"50%\r     \r\n", [("     ", True)]),
        (b"working\r", [("working", False)]),
        ("größer €\n".encode(), [("größer €", False)]),
        (b"\xff\xe2\x82\n\xe2\x82", [("\ufffd\ufffd", False), ("\ufffd", False)]),
        (b"\x1b[1;31mred\x1b[0m \x1b(Bplain\x1b[K\n", [("red plain", False)]),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x07!\n", [("link!", False)]),
        (b"tab\tbell\x07 nul\x00 \x1b[3", [("tab\tbell nul ", False)]),
        (b"  0%\b\b\b\b    \b\b\b\b 12% + a\b\b\b13% + b", [(" 12% 13% + b", True)]),
        (b"at 10%\b\b\b20%\n", [("at 20%", True)]),
        (b"a long line 10%\rshort 20%\n", [("short 20%", True)]),
        (b"| waiting\r/\r-\n", [("- waiting", True)]),
        (b"10% of it\x1b[2K\r20%\n", [("20%", True)]),
        (b"\x1b[K10%\r\x1b[Kdone\n", [("done", True)]),
        (b"ab\x1b[5Cc\x1b[2Gx\n", [("ax     c", True)]),
        (b"one\ntwo\n\x1b[2A\rONE\x1b[1B\rTWO\n", [("one", False), ("two", False), ("ONE", True), ("TWO", True)]),
        (b"\ra 0%\n\rb 0%\x1b[A\ra 9%\n\rb 5%\x1b[A\n\n", [("a 9%", True), ("b 5%", True)]),
        (b"one\n\x1b[A\rONE\x1b[B\rtwo\nthree\n", [("one", False), ("ONE", True), ("two", False), ("three", False)]),
        (b"one\ntwo\n\x1b[2A\x1b[Jthree\n", [("one", False), ("two", False), ("three", True)]),
        (b"\x1b7\x1b[24;0fat the bottom 3%\x1b8line\n", [("line", True)]),
        (b"it: \x1b[s10% of a\x1b[u20% of b\x1b[u\n", [("it: 20% of b", True)]),
        (b"it: 10% of a\x1b[5`\x1b[10X20%\n", [("it: 20%", True)]),
        (b"one\ntwo\x1bM\rONE\n\n", [("one", False), ("ONE", True), ("two", False)]),
    ],
)
def test_bytes_become_the_lines_a_terminal_would_show(said: bytes, lines: list[Any], step: int) -> None:
    assert [(line.text, line.rewritten) for line in fed(Terminal(), said, step) if line.final] == lines


@pytest.mark.parametrize("step", [1, 1000])
def test_each_form_of_a_rewritten_line_is_a_draft(step: int) -> None:
    ended = fed(Terminal(), b"10%\r20%\r30%\r", step)
    assert [line.text for line in ended if line.news] == ["10%", "20%", "30%"]


def test_a_line_is_told_as_soon_as_its_carriage_return_comes() -> None:
    """Each update ends with a carriage return, and the next one comes too soon for the line to be looked at."""
    terminal = Terminal()
    terminal.feed(b"0%\r")
    for number in range(1, 81):
        told = [line.text for line in terminal.feed(f"{number}%\r".encode())]
        assert told[-1] == f"{number}%"


def test_what_has_not_changed_for_a_moment_is_told_once() -> None:
    terminal = Terminal()
    terminal.feed(b"\r10/1")
    assert terminal.look() == [Line("10/1", 0, rewritten=True, unfinished=True)]
    assert terminal.look() == []
    terminal.feed(b"00")
    assert [line.text for line in terminal.look()] == ["10/100"]


def test_escape_sequences_are_kept_where_that_is_wanted() -> None:
    line = fed(Terminal(keep_ansi=True), b"gone\r\x1b[31mred\x1b[0m!\x1b[5D\x1b[32m\n", 1)[-1]
    assert (line.text, line.styled) == ("red!", "\x1b[32mred\x1b[0m!")


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x" * 500 + b"\r" + b"y" * 500, b"\r" + b"y" * 200_000])
def test_a_line_without_an_end_is_cut(piece: bytes) -> None:
    terminal = Terminal()
    for _ in range(300):
        assert not [line for line in terminal.feed(piece) if line.final]
    (line,) = [line for line in terminal.feed(b"\n") + terminal.look() if line.final]
    assert len(line.text) <= MAX_CHARS
    assert line.text.endswith("…") is (len(piece.rpartition(b"\r")[2]) > 500)


PIECES = [
    b"x",
    b"\r",
    b"x\r",
    b"x\b",
    b"\x1b[A",
    b"\x1b[Ax\n",
    b"\x1b[99999Cx",
    b"\x1b[2K",
    b"\x1b[J",
    b"\x1b]8;;",
    b"\0",
    b"\n",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_chunk_costs_the_same_however_long_the_line_is(piece: bytes) -> None:
    def cost(row: bytes) -> float:
        terminal = Terminal()
        terminal.feed(row)
        began = time.process_time()
        for _ in range(500):
            terminal.feed(piece)
        return time.process_time() - began

    assert min(cost(b"y" * 60_000) for _ in range(5)) < 5 * min(cost(b"") for _ in range(5))


@pytest.mark.parametrize("piece", PIECES)
def test_whatever_is_written_takes_bounded_memory(piece: bytes) -> None:
    terminal = Terminal()
    terminal.feed(b"y" * 100_000)
    for _ in range(4):
        drafts = [line for line in terminal.feed(piece * 10_000) if not line.final]
        assert len(drafts) <= 2 * MAX_ROWS
        assert sum(len(line.text) for line in drafts) <= 2 * MAX_ROWS * 1024
        assert len(terminal._rows) <= MAX_ROWS
        assert max(row.length for row in terminal._rows) <= MAX_CHARS + 1
        assert len(terminal._open) <= MAX_ESCAPE_CHARS


# Readings.


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("3/10", Reading(None, 3, 10)),
        ("step 3 of 10.", Reading(None, 3, 10, label="step")),
        ("[12,345/20,000]", Reading(None, 12345, 20000)),
        (" 30%|███   | 3/10 [00:01<00:02,  2.50it/s]", Reading(30, 3, 10)),
        ("Epoch 1/3:  30%|███   | 3/10", Reading(30, 3, 10, label="Epoch 1/3:")),
        ("  1,234,567  40%    1.23MB/s    0:00:12 (xfr#5, to-chk=180/301)", Reading(40)),
        ("  1,234,567  60%    1.23MB/s    0:00:12 (xfr#5, to-chk=180/301)", Reading(60)),
        ("60% done, 180/301 left", Reading(60, 180, 301)),
        ("40% done, 180/301 left", Reading(40, disputed=True)),
        ("to-chk=180/301", None),
        ("====3/10====", Reading(None, 3, 10)),
        ("50%[=====>    ] 1.2M", Reading(50)),
        ("12.5 % done", Reading(12.5)),
        ("12,5% done", Reading(12.5)),
        ("    Building [====>    ] 3/4: app", Reading(None, 3, 4, label="Building")),
        ("1.2/3.4 MB 5.6 MB/s eta 0:00:01", Reading(None, 1_200_000, 3_400_000, "bytes")),
        ("3.15MB / 6.30MB", Reading(None, 3_150_000, 6_300_000, "bytes")),
        ("Completed 512.0 KiB/1.0 MiB (3.0 MiB/s)", Reading(None, 524_288, 1_048_576, "bytes", "Completed")),
        ("45%|████| 1.20M/3.40M [00:01<00:02, 1.00MB/s]", Reading(45, disputed=True)),
        ("35%|███ | 1.20M/3.40M [00:01<00:02, 1.00MB/s]", Reading(35, 1_200_000, 3_400_000, "bytes")),
        ("    (12.34/100%)", Reading(12.34)),
        ("(0.00/100%) of disk-2", Reading(0)),
        ("1 250 000/2 500 000 rows", Reading(None, 1_250_000, 2_500_000)),
        ("12\u00a0000 of 20\u202f000", Reading(None, 12_000, 20_000)),
        ("file 7 100/250", Reading(None, 100, 250, label="file")),
        ("3/10 123 kB", Reading(None, 3, 10)),
        ("remote: Counting objects:  33% (1/3)", Reading(33, 1, 3, label="remote: Counting objects:")),
        (" 20 2929k   20  585k    0     0  1800k      0  0:00:01 --:--:--  0:00:01 1797k",
         Reading(None, 585 * 1024, 2929 * 1024, "bytes")),
        ("  0     0    0 10.0M    0     0  1800k      0 --:--:-- --:--:-- --:--:--  1797k", None),
        ("101% of 0/0, a/b, 1/2/3, 24/7, v1.2/3, x%20y, 3/4:5", None),
        ("3.0 MiB/s 12:30", None),
        ("nothing", None),
    ],
)  # fmt: skip
def test_a_line_says_how_far_the_work_is(line: str, told: Reading | None) -> None:
    assert read(line) == told


@pytest.mark.parametrize(
    ("pattern", "line", "told"),
    [
        ("auto", "3/10", Reading(None, 3, 10)),
        (r"(?P<percent>[\d.,]+) done", "12,5 done", Reading(12.5)),
        (
            r"(?P<current>\S+)/(?P<total>\d+) (?P<unit>\w+): (?P<message>.*)",
            "1/9 files: a ",
            Reading(None, 1, 9, "files", message="a"),
        ),
        (re.compile(r"(?P<current>\S+) rows"), "many rows", None),
        (r"(?P<current>\S+) rows", "nan rows", None),
        (r"(?P<current>\d+)(?: of (?P<total>\d+))?", "4", Reading(current=4)),
    ],
)
def test_a_pattern_of_ones_own_says_what_is_read(pattern: Any, line: str, told: Reading | None) -> None:
    made = make_pattern(pattern)
    assert made is not None
    assert made.read(line) == told


@pytest.mark.parametrize("pattern", ["auto", r"(?P<current>\d+)/(?P<total>\d+)"])
def test_a_number_that_may_go_on_is_not_taken_for_whole(pattern: str) -> None:
    made = make_pattern(pattern)
    assert made is not None
    assert made.read("10/1", unfinished=True) is None
    assert made.read("10/1" + "0" * 5000) is None
    assert made.read("10/100 ", unfinished=True) == Reading(None, 10, 100)


@pytest.mark.parametrize("off", [None, "off"])
def test_no_pattern_is_none(off: str | None) -> None:
    assert make_pattern(off) is None


@pytest.mark.parametrize("pattern", ["auot", "("])
def test_a_pattern_that_is_none_is_rejected_with_what_there_is(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="expected bars, auto, off or a regular expression"):
        make_pattern(pattern)


# Parts.


@pytest.mark.parametrize(
    ("lines", "shares"),
    [
        (["a 10%", "a 20%", "a 15%", "a 30%"], [10, 20, None, 30]),
        (["a 10%", "a 100%"], [10, None]),
        (["a: 100% (3/3)", "b: 10% (10/100)"], [None, 10]),
        (["a 2/3", "a 3/9"], [200 / 3, 100 / 3]),
        (["3/10", "40%", "50%"], [30, 40, 50]),
        (["40% (1/9 left)", "60% (6/10 left)"], [40, 60]),
        (["a 100%", "a 50%"], [None, 50]),
        (["a 97%", "a 3%", "a 5%"], [97, 3, 5]),
        (["a 97%", "a 60%", "a 70%", "a 80%", "a 90%"], [97, None, None, 80, 90]),
        (["90/100", "89/100", "88/100", "87/100", "86/100"], [90, None, None, 87, None]),
    ],
)
def test_the_newest_line_decides_and_a_part_only_rises(lines: list[str], shares: list[float | None]) -> None:
    parts = Parts()
    found = [parts.take(reading) for line in lines if (reading := read(line)) is not None]
    told = [None if m is None else 100 * (m.current or 0) / m.total if m.total else m.percent for m in found]
    assert told == shares


def test_a_percentage_ends_at_100_when_the_command_has_succeeded() -> None:
    """Some commands erase their bar before it is complete. A count stays as it was shown."""
    parts = Parts()
    parts.take(Reading(87))
    held = parts.complete()
    assert held is not None
    assert held.percent == 100
    parts.take(Reading(None, 3, 4))
    assert parts.complete() is None


def test_a_part_that_is_complete_is_shown_when_the_command_has_succeeded() -> None:
    parts = Parts()
    assert parts.take(Reading(None, 3, 3, "files")) is None
    held = parts.complete()
    assert held is not None
    assert (held.current, held.total, held.unit) == (3, 3, "files")
    assert parts.complete() is None


def rows_of(*frames: tuple[Reading, ...]) -> list[float | None]:
    """Return what is shown after each time that a command has drawn all its rows."""
    rows, shown = Rows(), []
    for frame in frames:
        for number, reading in enumerate(frame):
            rows.take(number, reading)
        together = rows.together()
        shown.append(None if together is None else together.share)
    return shown


def counted(label: str, *currents: int, total: int) -> list[Reading]:
    return [Reading(current=current, total=total, unit="bytes", label=label) for current in currents]


def test_a_bar_that_says_as_much_as_all_others_together_decides() -> None:
    frames = zip(
        counted("ada", 1, 4, 6, 10, total=10),
        counted("grace", 1, 2, 4, 5, total=10),
        counted("everything", 2, 6, 10, 15, total=50),
        strict=True,
    )
    assert rows_of(*frames) == [10, 40, 20, 30], "known when each has moved twice"


def test_bars_of_parts_are_never_added_to_the_one_above_them() -> None:
    inner = counted("part", *(1, 3, 5) * 4, total=6)
    outer = counted("all", *(n // 3 for n in range(12)), total=4)
    assert rows_of(*zip(outer, inner, strict=True)) == [25 * (n // 3) for n in range(12)]
