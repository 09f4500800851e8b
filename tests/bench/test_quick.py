"""The benchmarks run, their contenders answer, and each client gets each event once. The figures are not looked at."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.contenders import present

ALL_S = 600
"""What any of them may take, however busy the machine is; each begins several servers."""
pytestmark = pytest.mark.timeout(2 * ALL_S)
ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = {"fanout": ["broker", "sse-starlette", "nchan"], "latency": ["broker-asgi"], "memory": ["broker"]}

ALONE = {
    "storm": [],
    "cluster": ["--seconds", "0.5"],
    "soak": ["--seconds", "3"],
    "collector": [],
    "finding": [],
    "limits": [],
    "imports": ["--seconds", "0.1"],
    "hostile": ["--seconds", "0.5"],
    "transfer": [],
    "replay": ["--seconds", "1"],
    "reload": [],
}


def run(benchmark: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"bench.{benchmark}", "--quick", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=ALL_S)


def start(benchmark: str, contenders: list[str]) -> subprocess.CompletedProcess[str]:
    return run(benchmark, "--seconds", "0.3", "--contenders", ",".join(contenders))


Runs = dict[str, Future[subprocess.CompletedProcess[str]]]


@pytest.fixture(scope="module")
def started() -> Iterator[Runs]:
    """Two of them at a time: some of their time is spent on waiting."""
    with ThreadPoolExecutor(2) as threads:
        running = {name: threads.submit(start, name, contenders) for name, contenders in BENCHMARKS.items()}
        yield running | {name: threads.submit(run, name, *options) for name, options in ALONE.items()}
        threads.shutdown(cancel_futures=True)


def ended(started: Runs, benchmark: str) -> dict[str, Any]:
    done = started[benchmark].result()
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert figures["benchmark"] == benchmark
    return figures


def told(started: Runs, benchmark: str) -> dict[str, Any]:
    figures = ended(started, benchmark)
    assert {result["contender"] for result in figures["results"]} == set(BENCHMARKS[benchmark]) & set(present())
    assert not any(result["wrong"] for result in figures["results"])
    return figures


def test_fanout(started: Runs) -> None:
    figures = told(started, "fanout")
    for result in figures["results"]:
        assert result["deliveries_a_cpu_second"]["median"] > 0
        assert result["bytes_an_event"]["median"] == pytest.approx(figures["wire_bytes"], rel=0.05)


def test_latency(started: Runs) -> None:
    result = told(started, "latency")["results"][0]
    assert 0 < result["p50"]["median"] <= result["p99.9"]["median"]


def test_memory(started: Runs) -> None:
    told(started, "memory")


def test_storm(started: Runs) -> None:
    for result in ended(started, "storm")["results"]:
        assert result["exact"]


def test_cluster(started: Runs) -> None:
    results = ended(started, "cluster")["results"]
    assert [result["kind"] for result in results] == ["single", "cluster"]
    assert [len(result["masters_us"]) for result in results] == [1, 3]
    assert all(result["delivered"]["median"] > 0 for result in results)


def test_soak(started: Runs) -> None:
    figures = ended(started, "soak")
    assert not any(figures["left"].values())
    assert figures["clients"]["events"] > 0


def test_collector(started: Runs) -> None:
    assert {result["collector"] for result in ended(started, "collector")["results"]} == {"ours", "python's"}


def test_finding(started: Runs) -> None:
    figures = ended(started, "finding")
    assert figures["operations"] > 0
    assert all(result["caller"]["median"] > 0 for result in figures["results"])


def test_limits(started: Runs) -> None:
    assert {result["what"] for result in ended(started, "limits")["results"]} == {"call", "stream"}


def test_imports(started: Runs) -> None:
    plain, traced = ended(started, "imports")["results"]
    assert 0 < plain["modules"] < traced["modules"]
    assert plain["ratio"]["median"] > 1


def test_transfer(started: Runs) -> None:
    assert [result["case"] for result in ended(started, "transfer")["results"]] == ["bare", "export", "import", "copy"]


def test_replay(started: Runs) -> None:
    figures = ended(started, "replay")  # it ends with 1 if a line is wrong
    assert figures["events"] > 100


def test_hostile(started: Runs) -> None:
    stuck, rejected = ended(started, "hostile")["results"]
    assert not stuck["wrong"]
    assert not rejected["wrong"]
    assert rejected["rejected_a_second"]["median"] > 0


def test_a_contender_that_does_not_exist_is_named() -> None:
    done = start("fanout", ["broker", "apache"])
    assert done.returncode == 1
    assert "no such contender: apache" in done.stderr


def test_reload(started: Runs) -> None:
    figures = ended(started, "reload")
    assert (figures["cut"], figures["wrong"]) == (0, "")
