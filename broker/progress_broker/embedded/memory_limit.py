"""How much memory an embedded Redis may use, so that operations can't fill the machine."""

import os
from contextlib import suppress
from pathlib import Path

SHARE = 4
"""The default limit is the machine's memory divided by this. Rewriting the append-only file may take as much again."""

_CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def memory_limit(configured: int | None, container: tuple[Path, ...] = _CGROUP) -> int:
    """Return the limit in bytes; 0 is no limit. By default it is a share of the memory of the machine or container."""
    return available_bytes(container) // SHARE if configured is None else configured


def available_bytes(container: tuple[Path, ...] = _CGROUP) -> int:
    """Return the memory of the machine, or less if the container is limited to less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in container:
        with suppress(OSError, ValueError):  # no such file, or `max`
            sizes.append(int(path.read_text()))
    return min(sizes)
