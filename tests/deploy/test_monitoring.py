"""The dashboard and the alerts ask for metrics that there are, and the docs say what to do about each alert."""

import json
import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client.metrics_core import Metric

from tests.cases import case
from tests.deploy.files import ROOT
from tests.replica_metrics import replica_metrics
from tests.servers import need

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
ALERTS = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ALERTS_PAGE = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
TRIALS_FILE = ROOT / "tests" / "deploy" / "alerts.yml"
TRIALS = yaml.safe_load(TRIALS_FILE.read_text())
NOT_OURS = {"up"}  # Prometheus' own word on a target

_STRINGS = re.compile(r'"[^"]*"')
_LABELS = re.compile(r"\{([^}]*)\}")
_GROUPED = re.compile(r"\b(by|without|on|ignoring)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"\b[a-zA-Z_:][a-zA-Z0-9_:]*\b(?!\s*\()")


def panels() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


EXPRESSIONS = [*panels(), *((rule["alert"], rule["expr"]) for rule in RULES)]


def named(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression names."""
    bare = _GROUPED.sub(" ", _RANGE.sub("", _LABELS.sub("", _STRINGS.sub('""', expression))))
    return set(_NAME.findall(bare)) - {"and", "or", "unless", "bool"}


def labels(expression: str) -> set[str]:
    """Return the labels that it selects or groups by."""
    plain = _STRINGS.sub('""', expression)
    selected = {name for inside in _LABELS.findall(plain) for name in re.findall(r"(\w+)\s*[=!]", inside)}
    return selected | {name.strip() for _, inside in _GROUPED.findall(plain) for name in inside.split(",")}


@pytest.fixture
async def metrics() -> list[Metric]:
    return await replica_metrics()


def test_names_are_found_in_an_expression() -> None:
    expression = 'histogram_quantile(0.9, sum by (le, a) (rate(x_bucket{job="j{}k", b=~"c"}[5m]))) / on (d) y:z > 1e3'
    assert named(expression) == {"x_bucket", "y:z"}
    assert labels(expression) == {"job", "b", "le", "a", "d"}


def test_what_is_asked_for_is_there(metrics: list[Metric]) -> None:
    samples = {sample.name for metric in metrics for sample in metric.samples}
    known = {label for metric in metrics for sample in metric.samples for label in sample.labels}
    for where, expression in EXPRESSIONS:
        with case(where, expression):
            assert named(expression)
            assert named(expression) - NOT_OURS <= samples
            assert labels(expression) - {"job", "instance"} <= known


def test_each_reason_that_is_asked_for_is_told_from_the_beginning(metrics: list[Metric]) -> None:
    told = {(s.name, *item) for metric in metrics for s in metric.samples for item in s.labels.items()}
    for _, expression in EXPRESSIONS:
        for name, inside in re.findall(r"(\w+)\{([^}]*)\}", expression):
            for label, value in re.findall(r'(\w+)="([^"]*)"', inside):
                assert label == "job" or (name, label, value) in told


def test_the_dashboard_is_one() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & places, f"{panel['title']} lies on another"
        places |= cells
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    for _, expression in panels():
        assert set(re.findall(r"\$(\w+)", expression)) <= variables


def test_an_alert_says_what_happened_and_what_to_do() -> None:
    for rule in RULES:
        with case(rule["alert"]):
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"]
            assert rule["annotations"]["description"]
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_the_scrape_configuration_names_the_job_and_the_rules() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert [job["job_name"] for job in config["scrape_configs"]] == ["progress-broker"]
    assert all((PROMETHEUS / name).is_file() for name in config["rule_files"])


def test_the_documentation_says_of_each_alert_what_to_do() -> None:
    sections = re.findall(r"^## (ProgressBroker\w+)\n\n(.+)\n\n(.+)\n$", ALERTS_PAGE, re.MULTILINE)
    assert [name for name, _, _ in sections] == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"docs/how-to/alerts.md#{rule['alert'].lower()}"


def test_each_alert_is_tried() -> None:
    trials = [case for test in TRIALS["tests"] for case in test["alert_rule_test"]]
    for fires in (True, False):
        tried = {case["alertname"] for case in trials if bool(case["exp_alerts"]) is fires}
        assert tried == {rule["alert"] for rule in RULES}, f"each {'fires' if fires else 'is silent'} in a trial"


def promtool(*arguments: str) -> None:
    path = need("promtool", "prometheus")
    done = subprocess.run([path, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("kind", "name"), [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_finds_nothing_wrong(kind: str, name: str) -> None:
    promtool("check", kind, name)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", str(TRIALS_FILE))
