"""The Dockerfile makes a small image that runs the broker as nobody in particular, and the wheel has all it needs."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import files
from tests.deploy.conftest import ignored
from tests.deploy.proxies import Certificate
from tests.servers import START_S, ApiReplica, wait_until


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
