"""What a check finds: how bad it is, where, what was seen, and what mends it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is, the worst first."""

    FAULT = "fault"
    """Something does not work, or data get lost."""
    WARNING = "warning"
    """It works, but it is not safe, or will not work for long."""
    UNCHECKED = "unchecked"
    """It could not be checked; the finding says why."""
    GOOD = "good"


class Check(StrEnum):
    """What is checked. docs/how-to/doctor.md has a section for each."""

    REDIS = "redis"
    SENTINELS = "sentinels"
    ROLE = "role"
    VERSION = "version"
    EVICTION = "eviction"
    EVICTED = "evicted"
    MEMORY = "memory"
    PERSISTENCE = "persistence"
    COPIES = "copies"
    GRANTS = "grants"
    CLOCK = "clock"
    LATENCY = "latency"
    BUFFERS = "buffers"
    CERTIFICATE = "certificate"

    KEYSPACE = "keyspace"
    SWEEP = "sweep"
    LEASES = "leases"
    ORPHANS = "orphans"
    TTL = "ttl"

    REPLICAS = "replicas"
    SETTINGS = "settings"
    FILES = "files"

    SERVER = "server"
    ERRORS = "errors"
    STREAM = "stream"
    COMPRESSION = "compression"
    FORWARDED = "forwarded"
    METRICS = "metrics"
    HTTP2 = "http2"

    KEYS = "keys"
    RIGHTS = "rights"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found in one place."""

    check: Check
    level: Level
    at: str
    """Where: the address of a Redis, the URL of a server, the name of a replica, or of a setting."""
    said: str
    fix: str = ""
    """What to do. Faults and warnings have it."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What was measured. Names end in their units."""


MAKE_ROOM = (
    "keep operations for a shorter time (`progress-broker retention --ended 1h`), delete old ones (`progress-broker"
    " purge`), or set a larger maxmemory (CONFIG SET maxmemory, and in its configuration)"
)
"""What to do where Redis is full."""

_ORDER = {level: number for number, level in enumerate(Level)}


def sorted_by_level(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, the worst first; otherwise in their order."""
    return sorted(findings, key=lambda finding: _ORDER[finding.level])


def said_and_fix(detail: str) -> tuple[str, str]:
    """Divide the text of an error about a wrong set-up: what is wrong, a colon, and what to do."""
    said, _, fix = detail.rpartition(": ")
    return (said, fix) if said else (detail, "")
