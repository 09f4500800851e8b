"""The running processes, as the kernel reports them."""

from pathlib import Path


def _session(process: int) -> int | None:
    """Return the session that a process is in; None if it has ended, though nobody may have waited for it.

    It has ended when all its threads have: until then its files are open, though the first may be a zombie.
    """
    try:
        threads = [_stat(each) for each in Path(f"/proc/{process}/task").iterdir()]
    except OSError:
        return None
    return next((int(stat[3]) for stat in threads if stat and stat[0] not in "ZX"), None)


def _stat(thread: Path) -> list[str]:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(process: int) -> bool:
    """Return whether a process still runs."""
    return _session(process) is not None


def in_session(session: int) -> list[int]:
    """Return the ids of the processes that run in a session."""
    there = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [process for process in there if _session(process) == session]
