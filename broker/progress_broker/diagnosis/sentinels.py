"""Whether a Sentinel set can fail over, and whether its sentinels name the same master."""

import asyncio
from collections.abc import Sequence
from typing import Any

import redis.exceptions

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_broker.nodes.sentinels.connections import sentinel_connection
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.sentinels import question, read_master
from progress_broker.routing.server_errors import FAILURES, reason_of, text_of

Asked = tuple[Any, Any]
"""What a sentinel replies: the master, and whether enough sentinels are there for a failover. Errors are returned."""


async def examine_sentinels(address: RedisAddress, patience_s: float) -> list[Finding]:
    """Return what is wrong with each sentinel of an address, and with all of them together."""
    replies = await asyncio.gather(*(_asked(address, sentinel, patience_s) for sentinel in address.seeds))
    found, masters = [], dict[Endpoint | None, Endpoint]()
    for sentinel, reply in zip(address.seeds, replies, strict=True):
        found.append(_of_one(sentinel, reply))
        if not isinstance(reply, Exception) and not isinstance(reply[0], Exception):
            masters[read_master(reply[0], address)] = sentinel
    if len(masters) > 1:
        named = ", ".join(f"{sentinel} names {master or 'none'}" for master, sentinel in masters.items())
        said = f"sentinels name different masters: {named}"
        fix = "wait until a failover has ended; if it stays so, SENTINEL RESET at those that are wrong"
        found.append(Finding(Check.SENTINELS, Level.WARNING, address.shown, said, fix))
    return found


async def _asked(address: RedisAddress, sentinel: Endpoint, patience_s: float) -> Asked | Exception:
    try:
        async with asyncio.timeout(patience_s):
            return (
                await _ask(address, sentinel, question(address.service)),
                await _ask(address, sentinel, ("SENTINEL", "CKQUORUM", address.service)),
            )
    except FAILURES as error:
        return error


async def _ask(address: RedisAddress, sentinel: Endpoint, words: Sequence[str]) -> Any:
    """Return a reply, or the error that Redis replied."""
    connection = sentinel_connection(address, sentinel, asynchronous=True)
    try:
        await connection.connect()
        await connection.send_command(*words)
        return await connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error
    finally:
        await connection.disconnect(nowait=True)


def _of_one(sentinel: Endpoint, reply: Asked | Exception) -> Finding:
    at = str(sentinel)
    if isinstance(reply, Exception):
        said = f"this sentinel does not answer: {reason_of(reply)}"
        fix = "start it, or take it out of PROGRESS_REDIS_URL: without most of them there is no failover"
        return Finding(Check.SENTINELS, Level.WARNING, at, said, fix)
    quorum = reply[1]
    if not isinstance(quorum, redis.exceptions.RedisError):
        return Finding(Check.SENTINELS, Level.GOOD, at, "a failover can happen")
    if text_of(quorum).startswith("NOQUORUM"):
        said = f"no failover can happen now: {text_of(quorum).removeprefix('NOQUORUM ')}"
        fix = "start the other sentinels; run three of them, on machines of their own"
        return Finding(Check.SENTINELS, Level.WARNING, at, said, fix)
    return Finding(Check.SENTINELS, Level.UNCHECKED, at, f"not checked: {text_of(quorum)}")
