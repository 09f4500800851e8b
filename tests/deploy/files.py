"""What `compose.yaml` and the Dockerfile say, as an engine would read it."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
KINDS = {kind: ROOT / "deploy" / f"compose.{kind}.yaml" for kind in ("sentinel", "cluster")}
"""What is added to `compose.yaml` for another kind of Redis."""
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
NGINX = ROOT / "deploy" / "nginx.conf"
IGNORE = ROOT / ".dockerignore"


def compose(kind: str = "") -> dict[str, Any]:
    """Return what `compose.yaml` says, alone or with the file of a kind of Redis."""
    read: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    if kind:
        _merge(read, yaml.safe_load(KINDS[kind].read_text()))
    return read


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Add what a further file says, as an engine does for what ours have in common: mappings are merged."""
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif key == "networks" and isinstance(into.get(key), list):
            assert set(into[key]) == set(value)
            into[key] = value
        else:
            assert key not in into or key in _REPLACED or into[key] == value, f"{key}: how is it merged?"
            into[key] = value


_REPLACED = ("command", "test", "PROGRESS_REDIS_URL")


def nginx_address(services: dict[str, Any]) -> str:
    """Return the one address that nginx has among the replicas."""
    address: str = services["nginx"]["networks"]["front"]["ipv4_address"]
    return address


def seconds(duration: str) -> float:
    """Return a duration of the compose specification in seconds."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h)", duration))


@dataclass(frozen=True)
class Stage:
    """The instructions of one stage of a Dockerfile: (name, rest of the line)."""

    base: str
    instructions: list[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        return [rest for each, rest in self.instructions if each == name]

    def only(self, name: str) -> str:
        (rest,) = self.all(name)
        return rest

    @property
    def environment(self) -> dict[str, str]:
        return self._pairs("ENV")

    @property
    def labels(self) -> dict[str, str]:
        """The labels, with the defaults of its arguments."""
        defaults = self._pairs("ARG")
        return {
            key: re.sub(r"\$\{(\w+)\}", lambda it: defaults[it[1]], text) for key, text in self._pairs("LABEL").items()
        }

    def _pairs(self, name: str) -> dict[str, str]:
        pairs = [pair for rest in self.all(name) for pair in shlex.split(rest)]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def command(self) -> list[str]:
        return exec_form(self.only("CMD"))

    @property
    def health(self) -> list[str]:
        return exec_form(self.only("HEALTHCHECK").partition("CMD ")[2])


def exec_form(text: str) -> list[str]:
    """Return a command that is given as a list; anything else would be run by a shell."""
    command = json.loads(text)
    assert isinstance(command, list)
    return command


def stages() -> list[Stage]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for line in filter(None, joined):
        name, _, rest = line.partition(" ")
        if name == "ARG" and not found:
            key, _, value = rest.partition("=")
            arguments[key] = value
        elif name == "FROM":
            for key, value in arguments.items():
                rest = rest.replace(f"${{{key}}}", value)
            found.append(Stage(rest.split()[0], []))
        else:
            found[-1].instructions.append((name, rest.strip()))
    return found


def image() -> Stage:
    """Return the stage that is shipped."""
    return stages()[-1]


def command(service: dict[str, Any]) -> list[str]:
    given: list[str] = service.get("command") or image().command
    return given


def environment(service: dict[str, Any]) -> dict[str, str]:
    own = image().environment if "build" in service else {}
    given: dict[str, str] = service.get("environment", {})
    return own | given


def health(service: dict[str, Any]) -> list[str] | None:
    """Return the health check's command, or None where it is switched off."""
    said = service.get("healthcheck")
    if said is None:
        return image().health if "build" in service else None
    if said.get("disable"):
        return None
    first, *rest = said["test"]
    assert first == "CMD"
    return list(rest)
