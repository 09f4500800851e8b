"""The Dockerfile makes a small image that runs the broker as nobody in particular, and the wheel has all it needs."""

import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.cases import case
from tests.deploy import files
from tests.deploy.conftest import ignored
from tests.deploy.distributions import name_of
from tests.deploy.proxies import Certificate
from tests.servers import START_S, ApiReplica, wait_until

PROJECT = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]
LOCK = files.ROOT / "deploy" / "requirements.lock"


def test_it_is_built_in_one_stage_and_shipped_in_another() -> None:
    build, image = files.stages()
    assert build.base == image.base
    assert image.base.startswith("python:3.")
    assert image.base.endswith("-slim")
    assert image.all("COPY") == ["--from=build /opt/broker /opt/broker"]
    assert not any(tool in line for line in image.all("RUN") for tool in ("pip", "apt", "gcc"))


def test_it_does_not_run_as_root() -> None:
    user, _, group = files.image().only("USER").partition(":")
    assert int(user) > 0  # a number, which engines can check against root without looking into the image
    assert int(group) > 0


def test_its_commands_are_lists() -> None:
    image = files.image()
    assert image.command == ["progress-broker", "serve"]
    assert image.health[:2] == ["python", "-m"]
    assert image.all("ENTRYPOINT") == []


def test_the_image_alone_does_not_open_an_unguarded_port() -> None:
    assert files.image().environment["PROGRESS_HOST"] == "0.0.0.0"
    assert "PROGRESS_INSECURE" not in files.image().environment


def test_its_labels_say_what_it_is() -> None:
    labels = {key.removeprefix("org.opencontainers.image."): text for key, text in files.image().labels.items()}
    assert {name: labels[name] for name in ("title", "version", "licenses")} == {
        "title": PROJECT["name"],
        "version": PROJECT["version"],
        "licenses": PROJECT["license"],
    }
    assert {"description", "revision", "created"} <= labels.keys()


def test_it_has_exact_versions_whose_files_are_known() -> None:
    lock = re.sub(r"^ *#.*\n", "", LOCK.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    pinned: dict[str, str] = {}
    for line in lock.splitlines():
        requirement, *hashes = line.split(" --hash=sha256:")
        found = Requirement(requirement.strip())
        with case(found.name):
            (pin,) = found.specifier
            assert pin.operator == "=="
            assert hashes
            assert all(re.fullmatch("[0-9a-f]{64} *", each) for each in hashes)
        pinned[name_of(found.name)] = pin.version
    extras = PROJECT["optional-dependencies"]
    for text in (*PROJECT["dependencies"], *extras["server"], *extras["cli"], *extras["http"]):
        wanted = Requirement(text)
        if wanted.name != PROJECT["name"]:
            with case(text):
                assert wanted.specifier.contains(pinned[name_of(wanted.name)]), "write it again: see its first lines"
    (install,) = (run for run in files.stages()[0].all("RUN") if "requirements.lock" in run)
    assert "--require-hashes" in install
    assert not ignored("deploy/requirements.lock")


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "0.0.0.0", "insecure": True},
        {"host": "::", "insecure": True, "allowed_hosts": "example.com"},
        {"host": "localhost", "tls": True},
        {"host": "127.0.0.3", "tls": True, "insecure": True, "public_url": "https://example.com/progress"},
    ],
    ids=str,
)
def test_its_health_check_finds_the_server_wherever_it_listens(
    settings: dict[str, Any], redis_url: str, folder: Path
) -> None:
    if settings.pop("tls", False):
        certificate = Certificate(folder / "tls")
        settings |= {"tls_cert": certificate.cert, "tls_key": certificate.key}
    replica = ApiReplica(redis_url, folder / "api.log", **settings)
    command = [sys.executable, *files.image().health[1:]]
    assert replica.env is not None
    env = replica.env | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

    def health() -> tuple[int, str]:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout

    assert health()[0] == 1
    replica.start()
    try:
        wait_until(lambda: health()[0] == 0, f"it is healthy: {replica.output()}", START_S)
    finally:
        replica.stop(signal.SIGKILL)
    assert health()[0] == 1


@pytest.mark.parametrize(
    "path",
    [".env", ".git/config", "api/.env", "web/tests/page.test.mjs", "broker/__pycache__/hub.pyc", "id_rsa"],
)
def test_what_is_no_part_of_the_image_stays_out_of_its_context(path: str) -> None:
    assert ignored(path)


@pytest.mark.parametrize(
    "path",
    ["pyproject.toml", "broker/progress_broker/storage/lua/publish.lua", "web/progress_web/dashboard/index.html"],
)
def test_what_is_part_of_it_gets_in(path: str) -> None:
    assert not ignored(path)


def test_the_wheel_has_every_file_of_the_packages(site: Path) -> None:
    for part in ("broker", "api", "client", "workers", "cli", "web"):
        (package,) = (files.ROOT / part).glob("progress_*")
        for path in package.rglob("*"):
            if path.is_file() and not ignored(path.relative_to(files.ROOT).as_posix()):
                assert (site / path.relative_to(package.parent)).is_file(), path
