"""Texts for people: numbers, times and progress."""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from progress_cli.output import format
from tests.cli.conftest import Shell


@pytest.mark.parametrize(
    ("percent", "text"), [(0, "0.0 %"), (33.37, "33.4 %"), (99.97, "99.9 %"), (99.9999, "99.9 %"), (100, "100.0 %")]
)
def test_only_complete_work_shows_100_percent(percent: float, text: str) -> None:
    assert format.percentage(percent) == text
    assert format.progress({"percent": percent}) == text


@pytest.mark.parametrize("status", ["pending", "stalled", "cancelling", "succeeded", "failed", "cancelled"])
def test_only_running_work_has_time_left(status: str) -> None:
    told = {"percent": 35, "eta_ms": 2_000}
    assert format.progress(told, "running") == "35.0 %  2 s left"
    assert format.progress(told, status) == "35.0 %"


def test_one_is_no_plural() -> None:
    assert [format.counted(count, "event") for count in (0, 1, 2_000)] == ["0 events", "1 event", "2,000 events"]


def test_an_age_is_the_difference_to_the_given_time() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert format.ago(moment, moment + timedelta(minutes=5)) == "5 min ago"
    assert datetime.fromisoformat(format.stamp(moment, moment).partition(" (")[0]) == moment


@pytest.mark.parametrize("wrong_s", [-3_600, 3_600])
def test_ages_are_by_the_clock_of_redis(shell: Shell, monkeypatch: pytest.MonkeyPatch, wrong_s: float) -> None:
    assert "a: 1 event, last position" in shell.says("publish", "a", "--create")
    shell.says("publish", "a", "--type", "progress", "--data", "{}")
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + wrong_s)
    shell.env["PROGRESS_FORCE_CANCEL_AFTER_S"] = "600"
    shell.says("cancel", "a")
    shown = [shell.says("ls"), shell.says("show", "a")]
    assert all(age < 600 for text in shown for age in map(int, re.findall(r"(\d+) s ago", text)))
    assert "min ago" not in "".join(shown)
    assert "overdue" not in shown[1]
    assert "--force" not in shell.says("cancel", "a")


def test_every_time_has_a_zone(shell: Shell) -> None:
    shell.says("publish", "a", "--create", "--type", "end", "--data", json.dumps({"status": "succeeded"}))
    times = [line.split()[0] for line in shell.says("tail", "a", "--from", "start").splitlines()]
    shown = [" ".join(line.split()[1:3]) for line in shell.says("show", "a").splitlines() if " ago)" in line]
    assert len(times) == 2
    assert len(shown) == 3
    assert all(datetime.fromisoformat(text).tzinfo is not None for text in times + shown)


def test_a_listing_says_that_there_is_more(shell: Shell) -> None:
    for id in ("a", "b"):
        shell.says("publish", id, "--create")
    assert shell.run("ls", "--limit", "1").stderr == "progress-broker: 1 shown, there are more: use a larger --limit\n"
    assert shell.run("ls", "--limit", "2").stderr == ""
