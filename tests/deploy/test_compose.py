"""`compose.yaml` is a compose file, and keeps to what its readers may rely on."""

import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from progress_broker.routing.address import parse_address
from progress_broker.settings import Settings
from tests.deploy import files

SERVICES = files.compose()["services"]
ALL = {kind: files.compose(kind)["services"] for kind in ("", *files.KINDS)}
"""The services by the kind of Redis."""
EACH = [pytest.param(kind, name, id=f"{kind or 'single'}-{name}") for kind in ALL for name in ALL[kind]]
SECRET_NAMES = re.compile(r"passw|secret|token|credential|private|(^|[_-])(key|pass|pw)$|jwt|apikey", re.IGNORECASE)


def validate(path: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against the compose specification's JSON schema, which the package `check-jsonschema` carries."""
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*checker, str(path)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", [files.COMPOSE, *files.KINDS.values()], ids=lambda path: path.name)
def test_it_keeps_to_the_specification(path: Path) -> None:
    answer = validate(path)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("place", "value", "complaint"),
    [
        (("services", "redis", "comand"), ["redis-server"], "comand"),
        (("services", "api", "healthcheck"), {"test": 7}, "healthcheck"),
        (("services", "nginx", "ports"), "8000:8080", "ports"),
        (("volumes",), ["redis-data"], "volumes"),
    ],
)
def test_a_broken_file_does_not(place: tuple[str, ...], value: object, complaint: str, folder: Path) -> None:
    broken = files.compose()
    *way, last = place
    inner: Any = broken
    for step in way:
        inner = inner[step]
    inner[last] = value
    path = folder / "compose.yaml"
    path.write_text(yaml.safe_dump(broken))
    answer = validate(path)
    assert answer.returncode == 1
    assert complaint in answer.stdout


def test_the_services_are_the_known_ones() -> None:
    assert set(SERVICES) == {"redis", "api", "nginx", "worker"}
    assert SERVICES["api"]["deploy"]["replicas"] == 2


def test_redis_keeps_events_and_drops_none() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert SERVICES["redis"]["volumes"] == ["redis-data:/data"]


def test_only_the_loopback_port_of_nginx_is_published() -> None:
    for kind, services in ALL.items():
        published = {name: service["ports"] for name, service in services.items() if "ports" in service}
        assert published == {"nginx": ["127.0.0.1:8000:8080"]}
        assert files.compose(kind)["networks"]["back"]["internal"] is True
        assert all(service.get("network_mode") is None for service in services.values())


def test_replicas_take_nobodys_word_on_who_calls_but_nginxs() -> None:
    address = files.nginx_address(SERVICES)
    assert SERVICES["api"]["environment"]["PROGRESS_TRUSTED_PROXIES"] == address
    [pool] = files.compose()["networks"]["front"]["ipam"]["config"]
    assert ip_address(address) in ip_network(pool["subnet"])
    assert ip_address(address) not in ip_network(pool["ip_range"]), "an engine might give it to another"
    assert ip_network(pool["ip_range"]).subnet_of(ip_network(pool["subnet"]))  # type: ignore[arg-type]
    assert re.search(r"X-Forwarded-For\s+\$remote_addr;", files.NGINX.read_text()), "what a client says is dropped"


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_images_have_a_version(kind: str, name: str) -> None:
    images = [ALL[kind][name]["image"]]
    if "build" in ALL[kind][name]:
        images += [stage.base for stage in files.stages()]
    for image in images:
        _, colon, tag = image.partition(":")
        assert colon, f"{image} has no tag"
        assert "latest" not in tag


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_each_service_has_a_health_check_or_a_reason(kind: str, name: str) -> None:
    if name == "worker":
        assert re.search(r"disable: true # \w+", files.COMPOSE.read_text())
    else:
        assert files.health(ALL[kind][name])


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_what_a_service_needs_is_healthy_first(kind: str, name: str) -> None:
    needs = ALL[kind][name].get("depends_on", {})
    assert bool(needs) == (not name.startswith("redis"))
    assert all(how == {"condition": "service_healthy"} for how in needs.values())
    assert all(files.health(ALL[kind][needed]) for needed in needs)


@pytest.mark.parametrize(("kind", "name"), EACH)
def test_services_come_back_and_may_do_little(kind: str, name: str) -> None:
    service = ALL[kind][name]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "group_add"}
    assert "build" in service or service["user"] not in ("root", "0")
    mounted = [volume for volume in service.get("volumes", []) if volume.startswith((".", "/"))]
    assert all(volume.endswith(":ro") and "docker.sock" not in volume for volume in mounted)


def test_replicas_have_time_to_drain() -> None:
    drain_s = float(SERVICES["api"]["environment"]["PROGRESS_DRAIN_S"])
    assert files.seconds(SERVICES["api"]["stop_grace_period"]) >= drain_s + 5


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("name", ["api", "worker"])
def test_settings_are_settings(kind: str, name: str) -> None:
    given = {key for key in files.environment(ALL[kind][name]) if key.startswith("PROGRESS_")}
    assert given <= {f"PROGRESS_{field.upper()}" for field in Settings.model_fields}
    address = parse_address(ALL[kind][name]["environment"]["PROGRESS_REDIS_URL"])
    assert address.kind == (kind or "single")
    assert {endpoint.host for endpoint in address.seeds} <= set(ALL[kind])


def test_no_file_holds_a_secret() -> None:
    services = [service for kind in ALL for service in ALL[kind].values()]
    assert not any("secrets" in files.compose(kind) for kind in ALL)
    for service in services:
        assert not service.keys() & {"secrets", "env_file"}
    for names in (files.environment(service) for service in services):
        assert [name for name in names if SECRET_NAMES.search(name)] == []
    for stage in files.stages():
        assert [rest for rest in stage.all("ARG") if SECRET_NAMES.search(rest.partition("=")[0])] == []
    for path in (files.COMPOSE, *files.KINDS.values(), files.DOCKERFILE, files.NGINX, files.IGNORE):
        text = path.read_text()
        assert re.findall(r"--?(?:requirepass|masterauth|pass|auth|a)\s", text) == []
        assert re.findall(r"\w+://[^\s/@\"']*:[^\s/@\"']*@", text) == [], "an address with a password"
        assert re.findall(r"-----BEGIN|\beyJ[\w-]{10,}|\b(?:ghp|AKIA|sk|xox[bp])[-_\w]{12,}", text) == []
        assert re.findall(r"\b(?=\w*\d)(?=\w*[A-Za-z])[A-Za-z0-9+/=]{24,}", text) == [], "a random-looking string"
