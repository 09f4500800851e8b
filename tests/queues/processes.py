"""Which processes run, as the kernel tells it."""

from pathlib import Path


def _session(process: int) -> int | None:
    """Return the session that a process is in; None if it has ended, though nobody may have waited for it."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] in "ZX" else int(stat[3])


def alive(process: int) -> bool:
    """Return whether a process still runs."""
    return _session(process) is not None


def in_session(session: int) -> list[int]:
    """Return the ids of the processes that run in a session."""
    there = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [process for process in there if _session(process) == session]
