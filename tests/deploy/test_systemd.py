"""systemd takes the units, and they keep to what we promise.

What the server tells systemd is tested in `tests/cli/test_service_manager.py`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from progress_broker.settings import Settings
from progress_cli.exit_codes import REJECTED
from tests.deploy.files import ROOT
from tests.servers import need

UNITS = ROOT / "deploy" / "systemd"
SERVICES = ("progress-broker.service", "progress-broker@.service")
ARCHIVE = "progress-archive.service"
INSTALLED = "/opt/progress-broker/bin/progress-broker"
EXPOSURE = 20
"""The most of 100 that `systemd-analyze security` may find."""


def analyze(*words: str | Path, cwd: Path = UNITS) -> str:
    command = [need("systemd-analyze", "systemd"), *words]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def entries(name: str) -> list[str]:
    lines = (UNITS / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def value(name: str, key: str) -> str:
    (found,) = (line.partition("=")[2] for line in entries(name) if line.startswith(f"{key}="))
    return found


def test_systemd_finds_nothing_wrong(folder: Path) -> None:
    for unit in UNITS.iterdir():
        shutil.copy(unit, folder)
    program = Path(sys.executable).with_name("progress-broker")
    for service in (*SERVICES, ARCHIVE):
        path = folder / service
        assert INSTALLED in path.read_text()
        path.write_text(path.read_text().replace(INSTALLED, str(program)))
        for_it = folder / f"{service}.d"
        for_it.mkdir()
        shutil.copy(UNITS / "authentication.conf", for_it)
    units = ("progress-broker.service", "progress-broker@8001.service", "progress-broker.target", ARCHIVE)
    assert analyze("verify", "--man=no", *units, cwd=folder) == ""


@pytest.mark.parametrize("service", [*SERVICES, ARCHIVE])
def test_a_service_may_do_little(service: str) -> None:
    analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", service)


def test_both_services_differ_only_in_port_and_owner() -> None:
    one, many = (set(entries(name)) for name in SERVICES)
    port = r"--port %i$|^Description=|^PartOf=progress-broker\.target$|^WantedBy=|^EnvironmentFile="
    assert all(re.search(f"{port}|^ExecStart=", line) for line in one ^ many)
    assert value(SERVICES[1], "WantedBy") == "progress-broker.target"


def test_a_service_has_the_time_to_drain_and_is_not_brought_back_to_wrong_settings() -> None:
    for service in SERVICES:
        assert float(value(service, "TimeoutStopSec")) == Settings(_env_file=None).drain_s + 10
        assert (value(service, "Type"), value(service, "NotifyAccess")) == ("notify", "main")
        assert value(service, "ExecReload") == "/bin/kill -HUP $MAINPID"
        assert value(service, "RestartPreventExitStatus").split() == ["2", "5"]


def test_the_settings_named_exist_and_each_credential_has_one() -> None:
    for name in (*SERVICES, "authentication.conf"):
        settings = re.findall(r"^Environment=PROGRESS_(\w+)=(.*)$", "\n".join(entries(name)), re.MULTILINE)
        assert {setting.lower() for setting, _ in settings} <= set(Settings.model_fields)
        loaded = {
            line.partition("=")[2].partition(":")[0] for line in entries(name) if line.startswith("LoadCredential")
        }
        assert {told.rpartition("%d/")[2] for _, told in settings if "%d/" in told} == loaded


def test_the_archive_keeps_trying_without_redis_and_its_limits_are_those_of_a_server() -> None:
    assert value(ARCHIVE, "ExecStart") == f"{INSTALLED} archive --to ${{ARCHIVE_TO}}"
    assert value(ARCHIVE, "RestartPreventExitStatus") == str(REJECTED)
    assert entries(ARCHIVE)[-27:] == entries(SERVICES[0])[-27:]
