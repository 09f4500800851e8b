"""Counts what a call costs Redis, by INFO commandstats: MONITOR would itself cost more."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

_OWN = ("info", "config|resetstat", "config")


@dataclass(slots=True)
class Cost:
    """What happened between two looks at Redis."""

    commands: int = 0
    """Commands, those of scripts and the calls of scripts included."""
    scripts: int = 0
    longest_ms: float = 0.0
    """Mean time of a call of the slowest kind of command or script. It depends on the machine: a bench bounds it."""
    sent_bytes: int = 0


@asynccontextmanager
async def measured(client: Any) -> AsyncIterator[Cost]:
    """Yield a cost that is filled in at the end of the block. Nothing else may use this Redis meanwhile."""
    cost = Cost()
    await client.config_resetstat()
    yield cost
    stats = await client.info("commandstats")
    sent = await client.info("stats")
    named = {name.removeprefix("cmdstat_"): stat for name, stat in stats.items()}
    calls = {name: stat for name, stat in named.items() if name not in _OWN}
    cost.commands = sum(stat["calls"] for stat in calls.values())
    cost.scripts = named.get("evalsha", {}).get("calls", 0)
    cost.longest_ms = max((stat["usec_per_call"] / 1000 for stat in calls.values()), default=0.0)
    cost.sent_bytes = sent["total_net_output_bytes"]
