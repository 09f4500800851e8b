"""What real tools print, recorded (`tests/recordings/record.py`): what people see of it."""

# ruff: noqa: RUF001 - tools print typographic quotes

from itertools import product
from typing import NamedTuple

from progress_workers.processes.errors import failure
from tests.cases import case
from tests.recordings.play import NAMES, Bar, play


class Seen(NamedTuple):
    """What people see of a tool."""

    parts: list[tuple[float, float]]
    """Where the bar of each part of the work begins and how far it comes, in percent, while the tool runs."""
    end: Bar | None
    """The bar at the end."""
    message: str | None
    """The message at the end."""
    lines: int
    """How many lines are logged."""
    last: str
    """The last one."""
    unit: str | None = None
    pattern: str = "bars"
    error: str | None = None
    """How a tool that fails ends."""


def percent(value: float) -> Bar:
    return Bar(0, None, value)


SEEN = {
    "wget_parallel": Seen(
        [(0.0, 27.0), (14.0, 98.66)],
        percent(100),
        "joan.bin            100%[===================>]   2.77M  1.30MB/s    in 2.1s",
        3,
        "joan.bin            100%[===================>]   2.77M  1.30MB/s    in 2.1s",
    ),
    "tqdm_whole": Seen(
        [(0.0, 66.66)],
        Bar(6, 6, 100),
        "all: 100%|██████████| 6/6 [00:00<00:00,  7.13it/s]",
        1,
        "all: 100%|██████████| 6/6 [00:00<00:00,  7.13it/s]",
    ),
    "tqdm_unnamed": Seen(
        [(0.0, 90.0)],
        Bar(30, 30, 100),
        "70%|███████   | 7/10 [00:01<00:00,  6.78it/s]",
        3,
        "70%|███████   | 7/10 [00:01<00:00,  6.78it/s]",
    ),
    "tqdm_pool": Seen(
        [(0.0, 72.72), (52.17, 52.17), (40.0, 46.66), (37.33, 85.33)],
        Bar(75, 75, 100),
        "file 3:  92%|█████████▏| 12/13 [00:00<00:00, 31.75it/s]",
        0,
        "",
    ),
    "tqdm_nested_unnamed": Seen(
        [(0.0, 75.0)],
        Bar(4, 4, 100),
        "100%|██████████| 4/4 [00:01<00:00,  2.73it/s]",
        1,
        "100%|██████████| 4/4 [00:01<00:00,  2.73it/s]",
    ),
    "rich_parallel": Seen(
        [(0.0, 20.0), (16.5, 16.5), (14.33, 98.33)],
        percent(100),
        "write ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100% 0:00:00",
        5,
        "write ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100% 0:00:00",
    ),
    "rich_nested": Seen(
        [(0.0, 75.0)],
        percent(100),
        "part ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100% 0:00:00",
        3,
        "part ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100% 0:00:00",
    ),
    "apt_get": Seen([], None, None, 28, "Download complete and in download only mode"),
    "apt_get_terminal": Seen(
        [(0.0, 93.0), (0.0, 50.0), (0.0, 80.0)],
        percent(100),
        "Fetched 4002 kB in 2s (1907 kB/s)",
        28,
        "Download complete and in download only mode",
    ),
    "aws_s3_cp": Seen(
        [(4.38, 96.49)],
        Bar(5976883, 5976883, 100),
        "upload: ./data.bin to s3://bucket/data.bin",
        1,
        "upload: ./data.bin to s3://bucket/data.bin",
        unit="bytes",
    ),
    "cargo": Seen(
        [(0.0, 75.0)],
        Bar(3, 4, 75),
        "Finished `dev` profile [unoptimized + debuginfo] target(s) in 3.01s",
        6,
        "Finished `dev` profile [unoptimized + debuginfo] target(s) in 3.01s",
    ),
    "cmake": Seen([(14.0, 85.0)], percent(100), None, 8, "[100%] Built target ada", pattern="auto"),
    "curl": Seen(
        [(33.32, 73.33)],
        Bar(2999296, 2999296, 100),
        "100 2929k  100 2929k    0     0  1381k      0  0:00:02  0:00:02 --:--:-- 1382k",
        3,
        "100 2929k  100 2929k    0     0  1381k      0  0:00:02  0:00:02 --:--:-- 1382k",
        unit="bytes",
    ),
    "curl_bar": Seen(
        [(13.3, 93.3)],
        percent(100),
        "######################################################################## 100.0%",
        1,
        "######################################################################## 100.0%",
    ),
    "curl_cut": Seen(
        [(33.32, 49.98)],
        Bar(1499136, 2999296, 49.98),
        "50 2929k   50 1464k    0     0  1212k      0  0:00:02  0:00:01  0:00:01 1212k",
        4,
        "curl: (18) transfer closed with 1500000 bytes remaining to read",
        unit="bytes",
        error="curl: (18) transfer closed with 1500000 bytes remaining to read",
    ),
    "dd": Seen(
        [],
        None,
        "4198400 bytes (4.2 MB, 4.0 MiB) copied, 2 s, 2.1 MB/s",
        4,
        "6144000 bytes (6.1 MB, 5.9 MiB) copied, 2.95076 s, 2.1 MB/s",
    ),
    "docker_pull": Seen(
        [(20.16, 80.9), (50.0, 50.0)],
        Bar(1300000, 1300000, 100),
        "Status: Downloaded newer image for ada:1.0",
        6,
        "Status: Downloaded newer image for ada:1.0",
        unit="bytes",
    ),
    "git_clone": Seen(
        [(0.32, 99.03), (0.32, 99.03), (0.32, 99.03), (0.0, 99.2)],
        Bar(250, 250, 100),
        "Resolving deltas: 100% (250/250), done.",
        7,
        "Resolving deltas: 100% (250/250), done.",
    ),
    "ninja": Seen([(8.33, 91.66)], Bar(12, 12, 100), None, 12, "[12/12] Making out-10", pattern="auto"),
    "ninja_terminal": Seen([(0.0, 91.66)], Bar(12, 12, 100), "[12/12] Making out-11", 1, "[12/12] Making out-11"),
    "npm_install": Seen([], None, None, 1, "added 1 package in 3s"),
    "p7zip": Seen([(0.0, 98.0)], percent(100), "100% 20 + src/file-019.bin", 9, "Everything is Ok"),
    "pip_download": Seen(
        [], Bar(1200000, 1200000, 100), None, 10, "Successfully downloaded ada grace", unit="bytes", pattern="auto"
    ),
    "pip_download_raw": Seen(
        [(0.0, 52.39), (0.0, 87.29)],
        Bar(1201191, 1201191, 100),
        None,
        16,
        "Successfully downloaded ada grace",
        pattern="auto",
    ),
    "pip_download_terminal": Seen(
        [(0.0, 80.0), (0.0, 66.66)],
        Bar(1200000, 1200000, 100),
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 1.2/1.2 MB 3.0 MB/s  0:00:00",
        10,
        "Successfully downloaded ada grace",
        unit="bytes",
    ),
    "pv": Seen(
        [(10.0, 94.0)],
        percent(100),
        "1.91MiB 0:00:01 [1017KiB/s] [================================>] 100%",
        1,
        "1.91MiB 0:00:01 [1017KiB/s] [================================>] 100%",
    ),
    "rsync_progress": Seen(
        [(4.0, 46.0), (4.0, 88.0)],
        percent(100),
        "700,000 100%  633.54kB/s    0:00:01 (xfr#3, to-chk=0/4)",
        9,
        "700,000 100%  633.54kB/s    0:00:01 (xfr#3, to-chk=0/4)",
    ),
    "rsync_progress2": Seen(
        [(0.0, 99.0)],
        percent(100),
        "3,000,000 100%  891.85kB/s    0:00:03 (xfr#300, to-chk=0/301)",
        1,
        "3,000,000 100%  891.85kB/s    0:00:03 (xfr#300, to-chk=0/301)",
    ),
    "sevenzip": Seen([(0.0, 99.0)], percent(100), "99% 19 + src/file-019.bin", 9, "Everything is Ok"),
    "tar_checkpoint": Seen([], None, None, 5, "tar: Write checkpoint 100"),
    "tar_pv": Seen(
        [(8.0, 96.0)],
        percent(100),
        "2.01MiB 0:00:02 [ 927KiB/s] [================================>] 100%",
        1,
        "2.01MiB 0:00:02 [ 927KiB/s] [================================>] 100%",
    ),
    "tqdm": Seen(
        [(0.0, 90.0), (0.0, 90.0)],
        Bar(20, 20, 100),
        "write: 100%|██████████| 20/20 [00:00<00:00, 24.40it/s]",
        2,
        "write: 100%|██████████| 20/20 [00:00<00:00, 24.40it/s]",
    ),
    "tqdm_nested": Seen(
        [(0.0, 66.66)],
        Bar(3, 3, 100),
        "all: 100%|██████████| 3/3 [00:01<00:00,  2.03it/s]",
        5,
        "all: 100%|██████████| 3/3 [00:01<00:00,  2.03it/s]",
    ),
    "tqdm_parallel": Seen(
        [(0.0, 98.33)],
        Bar(60, 60, 100),
        "file 2: 100%|██████████| 30/30 [00:01<00:00, 19.53it/s]",
        3,
        "file 2: 100%|██████████| 30/30 [00:01<00:00, 19.53it/s]",
    ),
    "wget": Seen(
        [(1.0, 98.0)],
        Bar(3000000, 3000000, 100),
        None,
        65,
        "2026-11-30 02:50:35 (1.36 MB/s) - ‘data.bin’ saved [3000000/3000000]",
        pattern="auto",
    ),
    "wget_bar": Seen(
        [(0.0, 93.0)],
        percent(100),
        "data.bin            100%[===================>]   2.86M  1.34MB/s    in 2.1s",
        7,
        "2026-11-30 02:48:02 (1.34 MB/s) - ‘data.bin’ saved [3000000/3000000]",
    ),
    "yt_dlp": Seen(
        [(0.0, 69.9)],
        percent(100),
        "[download] 100% of    2.86MiB in 00:00:02 at 1.31MiB/s",
        5,
        "[download] 100% of    2.86MiB in 00:00:02 at 1.31MiB/s",
    ),
}


def test_people_see_of_a_tool_what_its_user_sees() -> None:
    for name, step in product(SEEN, (None, 1, 7)):
        with case(name, step):
            assert_seen(name, SEEN[name], step)


def assert_seen(name: str, seen: Seen, step: int | None) -> None:
    played = play(name, seen.pattern, step=step)
    sheet = played.sheet
    assert [(part[0], part[-1]) for part in played.parts] == seen.parts
    assert (sheet.bars[-1] if sheet.bars else None) == seen.end
    assert sheet.unit == seen.unit
    assert (sheet.messages[-1] if sheet.messages else None) == seen.message
    logged = [*sheet.logged, *sheet.warned]
    assert len(logged) == seen.lines
    assert (logged[-1].strip() if logged else "") == seen.last
    assert not any("\r" in line or "\b" in line or "\x1b" in line for line in logged)
    error = failure(played.exit_code, ["it"], played.last) if played.exit_code else None
    assert (str(error).splitlines()[-1] if error else None) == seen.error


def test_no_bar_is_at_its_end_while_a_tool_works() -> None:
    for name, pattern in product(NAMES, ("bars", "auto")):
        with case(name, pattern):
            assert all(bar.percent is None or bar.percent < 100 for bar in play(name, pattern).running)


def test_every_recording_is_looked_at() -> None:
    assert sorted(SEEN) == NAMES
