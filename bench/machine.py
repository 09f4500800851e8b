"""The properties of the machine that matter for the figures. It includes nothing that identifies the machine."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.processes import ALLOWED

LIBRARIES = ("redis", "hiredis", "uvloop", "httptools", "uvicorn", "sse-starlette", "orjson", "pydantic")


def facts(redis_info: dict[str, Any]) -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(ALLOWED) or os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "redis": redis_info.get("redis_version", "?"),
        "libraries": {name: found for name in LIBRARIES if (found := installed(name))},
    }


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def command() -> str:
    """The command as a user would type it, without paths of this machine."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return " ".join(["python", "-m", module.name if module else Path(sys.argv[0]).stem, *sys.argv[1:]])


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
