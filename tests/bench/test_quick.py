"""The benchmarks run, their contenders answer, and each client gets each event once. The figures are not looked at."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.contenders import present

ALL_S = 600
"""What all of them together may take; each begins several servers."""
pytestmark = pytest.mark.timeout(ALL_S + 30)
ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = {"fanout": ["broker", "sse-starlette", "nchan"], "latency": ["broker-asgi"], "memory": ["broker"]}

ALONE = {
    "storm": [],
    "soak": ["--seconds", "3"],
    "collector": [],
    "limits": [],
    "imports": ["--seconds", "0.1"],
    "hostile": ["--seconds", "0.5"],
}


def run(benchmark: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"bench.{benchmark}", "--quick", *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start(benchmark: str, contenders: list[str]) -> subprocess.Popen[str]:
    return run(benchmark, "--seconds", "0.3", "--contenders", ",".join(contenders))


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All of them at once: most of their time is spent on waiting."""
    running = {name: start(name, contenders) for name, contenders in BENCHMARKS.items()}
    running |= {name: run(name, *options) for name, options in ALONE.items()}
    yield running
    for process in running.values():
        process.terminate()
        process.communicate()


def ended(started: dict[str, subprocess.Popen[str]], benchmark: str) -> dict[str, Any]:
    output, errors = started[benchmark].communicate(timeout=ALL_S)
    assert started[benchmark].returncode == 0, errors
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert figures["benchmark"] == benchmark
    return figures


def told(started: dict[str, subprocess.Popen[str]], benchmark: str) -> dict[str, Any]:
    figures = ended(started, benchmark)
    assert {result["contender"] for result in figures["results"]} == set(BENCHMARKS[benchmark]) & set(present())
    assert not any(result["wrong"] for result in figures["results"])
    return figures


def test_fanout(started: dict[str, subprocess.Popen[str]]) -> None:
    figures = told(started, "fanout")
    for result in figures["results"]:
        assert result["deliveries_a_cpu_second"]["median"] > 0
        assert result["bytes_an_event"]["median"] == pytest.approx(figures["wire_bytes"], rel=0.05)


def test_latency(started: dict[str, subprocess.Popen[str]]) -> None:
    result = told(started, "latency")["results"][0]
    assert 0 < result["p50"]["median"] <= result["p99.9"]["median"]


def test_memory(started: dict[str, subprocess.Popen[str]]) -> None:
    told(started, "memory")


def test_storm(started: dict[str, subprocess.Popen[str]]) -> None:
    for result in ended(started, "storm")["results"]:
        assert result["exact"]
        assert result["reads"]["high"] >= 1


def test_soak(started: dict[str, subprocess.Popen[str]]) -> None:
    figures = ended(started, "soak")
    assert not any(figures["left"].values())
    assert figures["clients"]["events"] > 0


def test_collector(started: dict[str, subprocess.Popen[str]]) -> None:
    assert {result["collector"] for result in ended(started, "collector")["results"]} == {"ours", "python's"}


def test_limits(started: dict[str, subprocess.Popen[str]]) -> None:
    assert {result["what"] for result in ended(started, "limits")["results"]} == {"call", "stream"}


def test_imports(started: dict[str, subprocess.Popen[str]]) -> None:
    plain, traced = ended(started, "imports")["results"]
    assert 0 < plain["modules"] < traced["modules"]
    assert plain["ratio"]["median"] > 1


def test_hostile(started: dict[str, subprocess.Popen[str]]) -> None:
    stuck, refused = ended(started, "hostile")["results"]
    assert not stuck["wrong"]
    assert not refused["wrong"]
    assert refused["refused_a_second"]["median"] > 0


def test_a_contender_that_does_not_exist_is_named() -> None:
    process = start("fanout", ["broker", "apache"])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no such contender: apache" in errors
