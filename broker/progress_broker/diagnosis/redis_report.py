"""What a Redis reports about itself (INFO) that is not as it should be. No I/O."""

from collections.abc import Callable, Iterator
from math import isnan
from typing import Any

from progress_broker.diagnosis.finding import MAKE_ROOM, Check, Finding, Level, said_and_fix
from progress_broker.errors import SetupError
from progress_broker.storage.masters import Report, has_replica, memory_usage
from progress_broker.storage.schema import check_policy, check_version

NEARLY_FULL, ALMOST_FULL = 0.8, 0.95
_GIB = 1 << 30


def examine_report(report: Report, at: str, *, replicated: bool) -> Iterator[Finding]:
    """Return what is wrong with a server, and what is right. `replicated`: it is of a Sentinel set or a Cluster."""
    version = f"Redis {report.get('redis_version', 'of an unknown version')}"
    yield _set_up(check_version, Check.VERSION, report, at, version)
    yield _set_up(check_policy, Check.EVICTION, report, at, f"maxmemory-policy is {_policy(report)}")
    yield from _evicted(report, at)
    yield from _memory(report, at)
    yield from _persistence(report, at)
    if replicated and report.get("role", "master") == "master":
        yield from _copies(report, at)


def _set_up(check: Callable[[Report], None], name: Check, report: Report, at: str, good: str) -> Finding:
    try:
        check(report)
    except SetupError as error:
        return Finding(name, Level.FAULT, at, *said_and_fix(error.detail))
    return Finding(name, Level.GOOD, at, good)


def _policy(report: Report) -> str:
    return str(report.get("maxmemory_policy", "not reported"))


def _evicted(report: Report, at: str) -> Iterator[Finding]:
    evicted = int(report.get("evicted_keys", 0))
    figures = {"evicted_keys": evicted}
    if evicted == 0:
        yield Finding(Check.EVICTED, Level.GOOD, at, "no key was deleted for want of memory", figures=figures)
        return
    yield Finding(
        Check.EVICTED,
        Level.WARNING,
        at,
        f"this Redis has deleted {evicted} keys for want of memory since it started: the operations and events in"
        " them are lost",
        "set maxmemory-policy noeviction and a larger maxmemory; CONFIG RESETSTAT then sets this count to 0",
        figures,
    )


def _memory(report: Report, at: str) -> Iterator[Finding]:
    used, maximum = memory_usage(report)
    if isnan(used) or isnan(maximum):
        yield Finding(Check.MEMORY, Level.UNCHECKED, at, "not checked: this Redis does not report its memory (INFO)")
        return
    figures = {"used_bytes": used, "max_bytes": maximum}
    if maximum == 0:
        half = int(report.get("total_system_memory", 0)) / 2
        size = f" ({half / _GIB:.1f}gb)" if half else ""
        yield Finding(
            Check.MEMORY,
            Level.WARNING,
            at,
            "this Redis has no maxmemory: when the machine's memory is full, the system kills it, instead of it"
            " rejecting writes",
            f"set maxmemory to about half of the machine's memory{size}",
            figures,
        )
        return
    said = f"{used / maximum:.0%} of maxmemory are used ({_mib(used)} of {_mib(maximum)})"
    if used >= maximum:
        yield Finding(
            Check.MEMORY, Level.FAULT, at, f"this Redis is full and rejects writes: {said}", MAKE_ROOM, figures
        )
    elif used > ALMOST_FULL * maximum:
        yield Finding(Check.MEMORY, Level.FAULT, at, f"this Redis is almost full: {said}", MAKE_ROOM, figures)
    elif used > NEARLY_FULL * maximum:
        yield Finding(Check.MEMORY, Level.WARNING, at, f"this Redis fills up: {said}", MAKE_ROOM, figures)
    else:
        yield Finding(Check.MEMORY, Level.GOOD, at, said, figures=figures)


def _mib(size: float) -> str:
    return f"{size / (1 << 20):,.0f} MiB"


_WRITES: tuple[tuple[str, str], ...] = (
    ("rdb_last_bgsave_status", "last snapshot (BGSAVE)"),
    ("aof_last_write_status", "last write to the append-only file"),
    ("aof_last_bgrewrite_status", "last rewrite of the append-only file"),
)


def _persistence(report: Report, at: str) -> Iterator[Finding]:
    failed = [what for name, what in _WRITES if report.get(name, "ok") != "ok"]
    if failed:
        yield Finding(
            Check.PERSISTENCE,
            Level.FAULT,
            at,
            f"Redis could not write to its disk: the {' and the '.join(failed)} failed",
            "free space on its disk, or mend its folder's permissions; the log of Redis has the reason",
        )
    kept: Any = report.get("aof_enabled")
    if kept is None:
        yield Finding(
            Check.PERSISTENCE, Level.UNCHECKED, at, "not checked: this Redis does not report its persistence (INFO)"
        )
    elif not kept:
        yield Finding(
            Check.PERSISTENCE,
            Level.WARNING,
            at,
            "this Redis has no append-only file: a restart loses what was published since its last snapshot",
            "set appendonly yes (CONFIG SET appendonly yes, and in its configuration)",
        )
    elif not failed:
        yield Finding(Check.PERSISTENCE, Level.GOOD, at, "the append-only file is written")


def _copies(report: Report, at: str) -> Iterator[Finding]:
    figures = {"replicas": float(report.get("connected_slaves", 0))}
    if has_replica(report):
        yield Finding(Check.COPIES, Level.GOOD, at, "a replica follows this master", figures=figures)
        return
    yield Finding(
        Check.COPIES,
        Level.WARNING,
        at,
        "no replica follows this master: if it dies, nothing takes its place, and its data are lost",
        "start a replica of it (`replicaof`, in a Cluster `cluster replicate`), or look at the log of the one it had",
        figures,
    )
