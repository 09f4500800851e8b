"""What the image would have in it, and the services that run on it."""

import compileall
import fnmatch
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import files
from tests.deploy.stack import Stack
from tests.topologies.kinds import ALL_BACKENDS

collect_ignore = [] if ALL_BACKENDS in os.environ else ["test_cluster.py", "test_compose_kinds.py"]
"""Whole Sentinel sets and Clusters as they are deployed: `make topologies` tests them."""


def ignored(path: str) -> bool:
    """Tell whether `.dockerignore` keeps a path of the checkout back; the last line that fits decides."""
    verdict = False
    for line in files.IGNORE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        parts = path.split("/")
        heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:  # `*` stays within a level
            depth = pattern.count("/") + 1
            fits = len(heads) >= depth and fnmatch.fnmatch(heads[depth - 1], pattern)
        if fits:
            verdict = not line.startswith("!")
    return verdict


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of what the Dockerfile copies."""
    folder = tmp_path_factory.mktemp("image")
    source, wheels = folder / "src", folder / "wheels"
    source.mkdir()
    build = files.stages()[0]
    for copied in build.all("COPY"):
        *names, target = copied.split()
        for name in names:
            for path in [files.ROOT / name] if (files.ROOT / name).is_file() else (files.ROOT / name).rglob("*"):
                relative = path.relative_to(files.ROOT)
                if path.is_file() and not ignored(relative.as_posix()):
                    place = source / target / path.relative_to(files.ROOT / name)
                    if path == files.ROOT / name:
                        place = source / target / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, place)
    (run,) = (it for it in build.all("RUN") if it.startswith("pip wheel"))
    command = run.replace("/wheels", str(wheels)).split()
    built = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=source,
        env=os.environ | {"PIP_NO_BUILD_ISOLATION": "false", "PIP_NO_INPUT": "1"},  # pip reads `false` as "none of it"
        check=False,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, f"hatchling is in the extra `dev`; pip says: {built.stderr[-2000:]}"
    (wheel,) = wheels.iterdir()
    return wheel


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The packages as the image has them: the wheel, unpacked and compiled, as its processes write no bytecode."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    assert compileall.compile_dir(site, quiet=1)
    return site


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, site: Path) -> Iterator[Stack]:
    """All services, for tests that leave them as they were."""
    with Stack(tmp_path_factory.mktemp("stack"), site).running(worker=True) as running:
        yield running


@pytest.fixture
def stack(tmp_path: Path, site: Path) -> Stack:
    """All services, not yet started, for tests that stop some."""
    return Stack(tmp_path, site)
