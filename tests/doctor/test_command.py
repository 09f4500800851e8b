"""`progress-broker doctor` as people and monitoring call it."""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_cli.doctor.report import ReportFormat, exit_code, print_report
from tests.cli.conftest import Shell
from tests.docs.blocks import ROOT
from tests.doctor.conftest import configured
from tests.servers import RealRedis

FAULT = Finding(Check.EVICTION, Level.FAULT, 'a "b"\\', "keys | are deleted", "set it", {"used_bytes": 12345678.0})
WARNING = Finding(Check.MEMORY, Level.WARNING, "a", "it fills up", "keep less")
UNCHECKED = Finding(Check.CLOCK, Level.UNCHECKED, "a", "not checked: it does not answer")
GOOD = Finding(Check.LATENCY, Level.GOOD, "a", "a PING takes 1 ms", figures={"ping_p99_s": 0.001})


@pytest.fixture
def shell(good_redis: RealRedis, good: Any, tmp_path: Path) -> Shell:
    return Shell(tmp_path, redis_url=good_redis.url, data_dir=str(tmp_path / "data"))


def printed(format: ReportFormat, *findings: Finding) -> list[str]:
    lines: list[str] = []
    print_report(findings, format, lines.append)
    return lines


def test_the_worst_decides_the_exit_code() -> None:
    for findings, code in (
        ([GOOD, UNCHECKED, WARNING, FAULT], 2),
        ([GOOD, UNCHECKED, WARNING], 1),
        ([GOOD, UNCHECKED], 0),
    ):
        assert exit_code(findings, ReportFormat.TABLE, reached=True) == code
    assert exit_code([FAULT], ReportFormat.TABLE, reached=False) == 5
    assert exit_code([FAULT], ReportFormat.NAGIOS, reached=False) == 2


def test_a_plugin_of_nagios_tells_its_state_first_and_figures_after_a_bar() -> None:
    first, *others = printed(ReportFormat.NAGIOS, GOOD, WARNING, FAULT)
    told, _, figures = first.partition(" | ")
    assert told == "PROGRESS CRITICAL - 1 fault, 1 warning, 0 not checked, 1 good: keys / are deleted"
    assert figures.split()[-1] == "'latency_ping_p99_s@a'=0.001"
    assert [line.partition(" at ")[0] for line in others] == ["fault eviction", "warning memory"]
    assert all("What to do: " in line and "|" not in line for line in others)


def test_metrics_are_read_by_prometheus() -> None:
    text = "\n".join(printed(ReportFormat.PROMETHEUS, GOOD, WARNING, FAULT, UNCHECKED))
    samples = [sample for family in text_string_to_metric_families(text + "\n") for sample in family.samples]
    told = {(it.name, *it.labels.values()): it.value for it in samples}
    assert told["progress_broker_doctor_findings", "fault"] == 1
    assert told["progress_broker_doctor_finding", "fault", "eviction", 'a "b"\\', "set it"] == 1
    assert told["progress_broker_doctor_figure", "eviction", 'a "b"\\', "used_bytes"] == 12345678
    assert len([it for it in samples if it.name == "progress_broker_doctor_finding"]) == 3


def test_a_fault_is_told_to_people_and_to_programs(shell: Shell, good: Any) -> None:
    with configured(good, maxmemory_policy="allkeys-lru"):
        done = shell.run("doctor", "--timeout", "60")
        assert (done.returncode, done.stderr) == (2, "")
        [line] = [line for line in done.stdout.splitlines() if " eviction " in line]
        assert line.startswith("fault")
        assert "set maxmemory-policy noeviction" in line
        done = shell.run("doctor", "--timeout", "60", "-o", "json", "--only", "eviction", "--only", "version")
        fault, version = json.loads(done.stdout)
        assert (fault["level"], fault["check"], fault["at"]) == (
            "fault",
            "eviction",
            good.config_get("unixsocket")["unixsocket"],
        )
        assert (version["level"], version["check"], done.returncode) == ("good", "version", 2)
    done = shell.run("doctor", "--timeout", "60", "--only", "eviction")
    assert (done.returncode, done.stdout) == (0, "0 faults, 0 warnings, 0 not checked, 1 good\n")


def test_nothing_to_reach(shell: Shell, tmp_path: Path) -> None:
    done = shell.run("doctor", "--redis-url", f"unix://{tmp_path}/none.sock")
    assert (done.returncode, done.stderr) == (5, "")
    assert "start Redis" in done.stdout


def test_each_check_is_explained() -> None:
    page = (ROOT / "docs" / "how-to" / "doctor.md").read_text()
    assert [name for name in Check if f"\n| `{name}` |" not in page] == []
