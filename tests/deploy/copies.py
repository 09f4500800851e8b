"""Copies of the alerts and the dashboard for Kubernetes, as kustomize and helm read no file above their own folders.

`python -m tests.docs.references` writes them.
"""

import json
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.deploy.files import ROOT

DEPLOY = ROOT / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
MONITORING = DEPLOY / "kubernetes" / "components" / "monitoring"
CHART_FILES = DEPLOY / "helm" / "progress-broker" / "files"
WRITTEN = "# Written from {}, by `python -m tests.docs.references`.\n"
LABELS = {
    "app.kubernetes.io/name": "progress-broker",
    "app.kubernetes.io/part-of": "progress-broker",
    "app.kubernetes.io/component": "server",
}


def rules() -> str:
    return WRITTEN.format(ALERTS.relative_to(ROOT)) + dumped(
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "progress-broker", "labels": LABELS},
            "spec": yaml.safe_load(ALERTS.read_text()),
        }
    )


def dashboard() -> str:
    text = DASHBOARD.read_text()
    json.loads(text)
    return WRITTEN.format(DASHBOARD.relative_to(ROOT)) + dumped(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            # Grafana's sidecar looks for this label.
            "metadata": {"name": "progress-broker-dashboard", "labels": LABELS | {"grafana_dashboard": "1"}},
            "data": {"progress-broker.json": text.strip()},
        }
    )


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text.strip() else None)


_Dumper.add_representer(str, _text)


def dumped(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=10_000)


COPIES: dict[Path, Callable[[], str]] = {
    MONITORING / "rules.yaml": rules,
    MONITORING / "dashboard.yaml": dashboard,
    CHART_FILES / "alerts.yml": ALERTS.read_text,
    CHART_FILES / "dashboard.json": DASHBOARD.read_text,
}
