"""Runs checks. None of them takes long, and a failed one hides no other."""

import asyncio
from collections.abc import Awaitable, Iterable

from progress_broker.diagnosis.finding import MAKE_ROOM, Check, Finding, Level
from progress_broker.errors import BrokerError, StorageFull, Unreadable
from progress_broker.nodes.redis_errors import storage_errors

PATIENCE_S = 2.0
"""How long a check may take."""


async def bounded(check: Check, at: str, work: Awaitable[Iterable[Finding]], patience_s: float) -> list[Finding]:
    """Return what a check finds; if it fails or takes too long, that it could not be checked, and why."""
    try:
        with storage_errors():
            async with asyncio.timeout(patience_s):
                return list(await work)
    except TimeoutError:
        why = f"no answer within {patience_s:g} s"
    except Unreadable as error:
        return [
            Finding(
                check, Level.FAULT, at, error.detail, "use another PROGRESS_PREFIX, or keep the other program from it"
            )
        ]
    except StorageFull as error:
        return [Finding(check, Level.FAULT, at, f"not checked: {error.detail}", MAKE_ROOM)]
    except BrokerError as error:
        why = error.detail
    except Exception as error:  # also our own fault: it must hide no other
        why = f"{type(error).__name__}: {error}"
    return [Finding(check, Level.UNCHECKED, at, f"not checked: {why}")]


async def all_of(*checks: Awaitable[Iterable[Finding]]) -> list[Finding]:
    """Run checks at once; return what all of them find."""
    return [finding for found in await asyncio.gather(*checks) for finding in found]


def denied(check: Check, at: str, grant: str) -> Finding:
    """Return that something was not checked because Redis does not grant a command to our user."""
    return Finding(check, Level.UNCHECKED, at, f"not checked: this Redis user may not do it, which needs {grant}")
