"""The Dockerfile makes a small image that runs the broker as nobody in particular, and the wheel has all it needs."""

from pathlib import Path

import pytest

from tests.deploy import files
from tests.deploy.conftest import ignored


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
    assert image.health[:2] == ["python", "-c"]
    assert image.all("ENTRYPOINT") == []


def test_the_image_alone_does_not_open_an_unguarded_port() -> None:
    assert files.image().environment["PROGRESS_HOST"] == "0.0.0.0"
    assert "PROGRESS_INSECURE" not in files.image().environment


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
    for part in ("broker", "api", "workers", "cli", "web"):
        (package,) = (files.ROOT / part).glob("progress_*")
        for path in package.rglob("*"):
            if path.is_file() and not ignored(path.relative_to(files.ROOT).as_posix()):
                assert (site / path.relative_to(package.parent)).is_file(), path
