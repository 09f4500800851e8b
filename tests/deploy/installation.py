"""The wheel in a virtual environment of its own, and a user's project that runs with it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.servers import Process

SHADOWS = ("api/__init__.py", "broker.py", "cli/__init__.py", "web/__init__.py")
"""Modules of the project that have the names of our folders, and are none of our business."""
WORKERS = """
import os

from celery import Celery

import progress_workers
from progress_workers.queues.celery import install

app = Celery("shop", broker=os.environ["QUEUE_URL"], backend=os.environ["QUEUE_URL"])
install(app)


@app.task
def count(rows):
    return sum(1 for _ in progress_workers.track(range(rows)))
"""
REPORT = """
from progress_workers import Operation

with Operation.start("count", id="counted", total=3) as op:
    for _ in op.track(range(3)):
        pass
"""


class Installation:
    """A virtual environment with the wheel, which takes its dependencies from another folder."""

    def __init__(self, folder: Path, wheel: Path, dependencies: Path) -> None:
        self.folder, self.project = folder / "venv", folder / "project"
        self.bin = self.folder / "bin"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.folder], check=True)
        self.site = Path(sysconfig.get_path("purelib", vars={"base": str(self.folder)}))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.bin / "python"]
        subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], check=True, env=_plain())
        # What other .pth files of that folder say does not count here: the editable install stays out.
        (self.site / "dependencies.pth").write_text(f"{dependencies}\n")
        self._write()

    def _write(self) -> None:
        files = {name: f"raise RuntimeError('the own {name} was imported')\n" for name in SHADOWS}
        for name, text in {**files, "workers/__init__.py": WORKERS, "report.py": REPORT}.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def environment(self, **more: str) -> dict[str, str]:
        return _plain() | {"PYTHONPATH": str(self.project)} | more

    def run(self, command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the project, and return what came of it."""
        return subprocess.run(
            [self.bin / command, *arguments],
            cwd=self.project,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def process(self, log: Path, command: str, *arguments: str, **environment: str) -> Process:
        """Return a program of the environment, to be started in the project."""
        within = ["env", "-C", str(self.project), str(self.bin / command), *arguments]
        return Process(within, log, self.environment(**environment))


def _plain() -> dict[str, str]:
    """Return our environment without what is said in it to Python, pip, or the broker."""
    said = ("PYTHONPATH", "VIRTUAL_ENV", "PIP_", "PROGRESS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(said)}
