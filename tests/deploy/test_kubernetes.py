"""What is applied to Kubernetes is valid and keeps to what we promise, and the chart makes the same as kustomize."""

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from progress_broker.settings import Settings
from progress_server.auth.api_keys import hash_key, new_key
from tests.cases import case
from tests.deploy.copies import COPIES
from tests.deploy.files import ROOT, image
from tests.deploy.tools import run
from tests.servers import ApiReplica, need

Object = dict[str, Any]

KUBERNETES = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "progress-broker"
KUSTOMIZED = ("base", "overlays/small", "overlays/production", "overlays/sentinel")
ALL_ON = ("httpRoute.enabled=true", "autoscaling.enabled=true", "monitoring.enabled=true", "ingress.enabled=true")
CHARTED: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "production": ("--values", str(CHART / "values-production.yaml")),
    "everything": ("--set", ",".join([*ALL_ON, "toolbox.enabled=true", "spreadOverZones=true"])),
    "nothing": (
        "--set",
        "networkPolicy.enabled=false,podDisruptionBudget.enabled=false,secrets.files=,test.token.name=",
    ),
}
PROGRAM = Path(sys.executable).with_name("progress-broker")
VERSIONS = ("1.27", "1.37")
"""The oldest and the newest release of Kubernetes whose schemas the objects are compared with."""


@cache
def kustomized(folder: str) -> list[Object]:
    return list(yaml.safe_load_all(run("kubectl", "kustomize", KUBERNETES / folder)))


@cache
def charted(values: str, release: str = "progress-broker") -> list[Object]:
    objects = yaml.safe_load_all(run("helm", "template", release, CHART, *CHARTED[values]))
    return [it for it in objects if it]


RENDERED = {name: (kustomized, name) for name in KUSTOMIZED} | {f"chart: {name}": (charted, name) for name in CHARTED}


def rendered(name: str) -> list[Object]:
    render, what = RENDERED[name]
    return render(what)


def of(objects: list[Object], kind: str, name: str = "progress-broker") -> Object:
    (found,) = (it for it in objects if it["kind"] == kind and plain(it["metadata"]["name"]) == name)
    return found


def plain(name: str) -> str:
    """Return a name without the checksum that kustomize adds."""
    return re.sub(r"-[a-z0-9]{10}$", "", name)


def pods(objects: list[Object]) -> list[Object]:
    return [
        it["spec"]["template"]["spec"] if it["kind"] == "Deployment" else it["spec"]
        for it in objects
        if it["kind"] in ("Deployment", "Pod")
    ]


CUSTOM = {"PodMonitor", "PrometheusRule", "HTTPRoute"}


def custom_faults(objects: list[Object]) -> str:
    """Return what the schemas of their CRDs find wrong with objects."""
    program = [need("node", "nodejs"), str(Path(__file__).with_name("custom_resources.mjs"))]
    done = subprocess.run(program, input=json.dumps(objects), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_object_keeps_to_its_schema() -> None:
    custom = []
    for name in RENDERED:
        for it in rendered(name):
            with case(name, it["kind"], it["metadata"]["name"]):
                if it["kind"] in CUSTOM:
                    custom.append(it)
                else:
                    for version in VERSIONS:
                        kubernetes_validate.validate(it, version, strict=True)
    assert {it["kind"] for it in custom} == CUSTOM
    assert custom_faults(custom) == ""


def test_an_object_that_does_not_is_found() -> None:
    deployment = copy.deepcopy(of(kustomized("base"), "Deployment"))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, VERSIONS[0], strict=True)
    monitor = copy.deepcopy(of(kustomized("overlays/production"), "PodMonitor"))
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "often"
    assert "interval" in custom_faults([monitor])


# What pods and their owners keep to, whoever renders them


def test_pods_may_do_as_little_as_possible() -> None:
    """The profile `restricted` of Kubernetes' pod security standards, and no way to its API."""
    for name in RENDERED:
        objects = rendered(name)
        assert of(objects, "ServiceAccount")["automountServiceAccountToken"] is False
        for pod in pods(objects):
            with case(name, pod["containers"][0]["name"]):
                assert pod["automountServiceAccountToken"] is False
                # A service `progress-broker` would be told to its pods in variables PROGRESS_BROKER_….
                assert pod["enableServiceLinks"] is False
                whole = pod["securityContext"]
                user, group = image().only("USER").split(":")
                assert (whole["runAsNonRoot"], whole["runAsUser"], whole["runAsGroup"]) == (True, int(user), int(group))
                assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
                assert all(not {"hostPath", "persistentVolumeClaim"} & set(it) for it in pod["volumes"])
                for container in pod["containers"]:
                    assert container["securityContext"] == {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    }


def test_a_server_is_replaced_before_it_drains_and_has_the_time_to() -> None:
    for name in RENDERED:
        objects = rendered(name)
        deployment = of(objects, "Deployment")
        with case(name):
            rolling = deployment["spec"]["strategy"]["rollingUpdate"]
            assert (rolling["maxUnavailable"], rolling["maxSurge"]) == (0, 1)
            pod = deployment["spec"]["template"]["spec"]
            (server,) = pod["containers"]
            drain_s = float(of(objects, "ConfigMap")["data"]["PROGRESS_DRAIN_S"])
            assert pod["terminationGracePeriodSeconds"] == drain_s + 15
            assert server["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
            paths = {kind: server[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
            assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
            ports = {port["name"]: port["containerPort"] for port in server["ports"]}
            assert ports["http"] == int(image().environment["PROGRESS_PORT"])
            assert ports["metrics"] == int(of(objects, "ConfigMap")["data"]["PROGRESS_METRICS_PORT"])


def test_the_settings_exist_and_are_no_secrets() -> None:
    for name in RENDERED:
        objects = rendered(name)
        settings = of(objects, "ConfigMap")["data"]
        with case(name):
            read = Settings(
                **{key.removeprefix("PROGRESS_").lower(): value for key, value in settings.items()}, _env_file=None
            )
            assert {f"PROGRESS_{field.upper()}" for field in read.model_fields_set} == set(settings)
            assert read.redis_url is None
            assert not [it for it in objects if it["kind"] == "Secret"]


def test_what_is_selected_is_what_there_is() -> None:
    for name in RENDERED:
        objects = rendered(name)
        labels = of(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
        selectors = [of(objects, "Service")["spec"]["selector"]]
        for it in objects:
            if (
                it["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor")
                and "toolbox" not in it["metadata"]["name"]
            ):
                selectors.append(it["spec"]["selector"]["matchLabels"])
            elif it["kind"] == "NetworkPolicy":
                selectors.append(it["spec"]["podSelector"]["matchLabels"])
        for selector in selectors:
            with case(name, selector):
                assert selector.items() <= labels.items()
                assert selector["app.kubernetes.io/component"] == "server"


def test_metrics_are_scraped_where_they_are_and_by_nobody_else() -> None:
    for name in ("overlays/production", "chart: production"):
        objects = rendered(name)
        with case(name):
            assert [it["port"] for it in of(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]] == ["metrics"]
            ways = of(objects, "NetworkPolicy")["spec"]["ingress"]
            (to_metrics,) = (way["from"] for way in ways if {"port": "metrics"} in way["ports"])
            names = [it["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for it in to_metrics]
            assert names == ["monitoring"]


def test_the_alerts_meet_the_job_of_the_pod_monitor() -> None:
    for name in ("overlays/production", "chart: production"):
        objects = rendered(name)
        labels = of(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
        job = labels[of(objects, "PodMonitor")["spec"]["jobLabel"]]
        rules = json.dumps(of(objects, "PrometheusRule")["spec"])
        assert set(re.findall(r'job=\\"([^"\\]+)', rules)) == {job}


def test_autoscaling_looks_at_a_metric_that_there_is_and_decides_alone() -> None:
    reference = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    for name in ("overlays/production", "chart: production"):
        objects = rendered(name)
        scaler = of(objects, "HorizontalPodAutoscaler")["spec"]
        (metric,) = (it["pods"]["metric"]["name"] for it in scaler["metrics"] if it["type"] == "Pods")
        assert f"| `{metric}` | gauge |" in reference
        assert "replicas" not in of(objects, "Deployment")["spec"]


def test_the_small_one_is_one_and_the_one_for_sentinels_reaches_them() -> None:
    small, production, sentinel = (kustomized(f"overlays/{name}") for name in ("small", "production", "sentinel"))
    assert of(small, "Deployment")["spec"]["replicas"] == 1
    assert not [it for it in small if it["kind"] == "PodDisruptionBudget"]
    told = [it for it in sentinel if it["kind"] != "NetworkPolicy"]
    assert told == [it for it in production if it["kind"] != "NetworkPolicy"]
    ports = {port["port"] for way in of(sentinel, "NetworkPolicy")["spec"]["egress"] for port in way["ports"]}
    assert ports == {53, 6379, 443, 26379}


# The chart


def compared(objects: list[Object]) -> list[Object]:
    """Return objects without what a chart alone has: labels of its release, and its way to notice a change."""
    own = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: without(it) for key, it in value.items() if key not in own | {"checksum/config"}}
            return {key: it for key, it in kept.items() if not (key == "annotations" and it == {})}
        return [without(it) for it in value] if isinstance(value, list) else value

    plainly = json.loads(re.sub(r'"progress-broker-[a-z0-9]{10}"', '"progress-broker"', json.dumps(without(objects))))
    hooks = [it for it in plainly if "helm.sh/hook" not in it["metadata"].get("annotations", {})]
    return sorted(hooks, key=lambda it: (it["kind"], it["metadata"]["name"]))


@pytest.mark.parametrize(("values", "folder"), [("defaults", "base"), ("production", "overlays/production")])
def test_the_chart_makes_what_kustomize_makes(values: str, folder: str) -> None:
    chart, kustomize = compared(charted(values)), compared(kustomized(folder))
    assert [(it["kind"], it["metadata"]["name"]) for it in chart] == [
        (it["kind"], it["metadata"]["name"]) for it in kustomize
    ]
    for ours, theirs in zip(chart, kustomize, strict=True):
        with case(ours["kind"], ours["metadata"]["name"]):
            assert ours == theirs


def test_a_setting_that_changes_replaces_the_pods() -> None:
    def checksum(*words: str) -> str:
        objects = list(yaml.safe_load_all(run("helm", "template", "x", CHART, *words)))
        found: str = of(objects, "Deployment", "x-progress-broker")["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]
        return found

    drain = "settings.PROGRESS_DRAIN_S=30"
    assert len({checksum(), checksum("--set", "replicas=3"), checksum("--set", drain)}) == 2


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("replica=3", "replica"),
        ("replicas=0", "replicas"),
        ("settings.PROGRESS_REDIS_URL=redis://redis", "PROGRESS_REDIS_URL"),
        ("settings.DRAIN_S=3", "DRAIN_S"),
        ("autoscaling.cpu=170", "cpu"),
    ],
)
def test_wrong_values_are_rejected(value: str, complaint: str) -> None:
    assert complaint in run("helm", "template", "x", CHART, "--set", value, ok=False)


def test_values_are_all_described() -> None:
    """A value that the schema lacks would be rejected; one that the values lack would be unknown to readers."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(described: Object, given: Object, where: str) -> None:
        with case(where):
            assert set(described.get("properties", given)) - {"global"} == set(given)
        for key, value in given.items():
            if isinstance(value, dict) and "properties" in described.get("properties", {}).get(key, {}):
                compare(described["properties"][key], value, f"{where}.{key}")

    compare(schema, values, "values")


def test_helm_finds_nothing_wrong() -> None:
    assert "0 chart(s) failed" in run("helm", "lint", "--strict", CHART)


@pytest.mark.parametrize("path", COPIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_copy_says_what_its_original_says(path: Path) -> None:
    assert path.read_text() == COPIES[path](), "write it again: python -m tests.docs.references"


def test_it_installs_the_release_that_this_is() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    images = {it["image"] for name in RENDERED for pod in pods(rendered(name)) for it in pod["containers"]}
    assert images == {f"progress-broker:{version}"}


def test_what_helm_test_runs_publishes_and_receives(redis_url: str, folder: Path) -> None:
    (container,) = of(charted("defaults"), "Pod", "progress-broker-test")["spec"]["containers"]
    command = [*container["command"], *container["args"]]
    key, keys = new_key(), folder / "api-keys.toml"
    grants = '[{actions = ["read", "publish", "create"]}]'
    keys.write_text(f'[[keys]]\nname = "helm"\nsha256 = "{hash_key(key)}"\ngrants = {grants}\n')
    with ApiReplica(redis_url, folder / "api.log", auth="jwt", api_keys=keys) as replica:
        env = {"PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "HOME": "/nonexistent", "PROGRESS_URL": replica.url}
        env["PROGRESS_TOKEN"] = key
        done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "50" in done.stdout
