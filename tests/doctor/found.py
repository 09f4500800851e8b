"""What doctor found, as tests ask for it."""

from collections.abc import Iterable
from typing import Any

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.diagnosis.redis import examine_redis
from tests.conftest import make_settings
from tests.servers import DEADLINE_S

LATENCY = {Check.LATENCY}
"""What a busy machine makes true."""


async def examine(url: str, *, patience_s: float = DEADLINE_S, clock: Any = None, **settings: Any) -> list[Finding]:
    """Return what is found at a Redis."""
    given = {} if clock is None else {"clock": clock}
    examined = await examine_redis(make_settings(redis_url=url, **settings), patience_s=patience_s, **given)
    return examined.findings


def bad(findings: Iterable[Finding]) -> set[tuple[Check, Level]]:
    """Return what is not good, but for what a busy machine makes true."""
    return {(it.check, it.level) for it in findings if it.level is not Level.GOOD and it.check not in LATENCY}


def assert_found(findings: Iterable[Finding], check: Check, level: Level, fix: str) -> Finding:
    """Return the one finding of a check with a level; its fix has these words."""
    [found] = [finding for finding in findings if (finding.check, finding.level) == (check, level)]
    assert fix in found.fix, found
    assert found.said
    return found
