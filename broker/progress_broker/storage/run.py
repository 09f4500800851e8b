"""Runs scripts in Redis: one, or many in one round trip."""

from collections.abc import Sequence
from typing import Any

import redis.exceptions

from progress_broker.storage.redis_errors import storage_errors
from progress_broker.storage.scripts import Call


async def run(client: Any, call: Call) -> Any:
    """Run a script. Load it first if the server does not have it: a restart or a failover clears its script cache."""
    with storage_errors():
        try:
            return await client.execute_command(*call.command())
        except redis.exceptions.NoScriptError:
            await client.script_load(call.script.text)
            return await client.execute_command(*call.command())


async def run_all(client: Any, calls: Sequence[Call]) -> list[Any]:
    """Run independent scripts and return their replies. Raise the first error of Redis itself."""
    replies = await run_each(client, calls)
    with storage_errors():
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies


async def run_each(client: Any, calls: Sequence[Call]) -> list[Any]:
    """Run independent scripts and return their replies, or the errors of Redis with which single ones failed.

    Scripts that the server does not have are loaded first.
    """
    with storage_errors():
        replies = await _send(client, calls)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unknown:
            for script in {calls[at].script for at in unknown}:
                await client.script_load(script.text)
            for at, reply in zip(unknown, await _send(client, [calls[at] for at in unknown]), strict=True):
                replies[at] = reply
    return replies


async def _send(client: Any, calls: Sequence[Call]) -> list[Any]:
    async with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call.command())
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies
