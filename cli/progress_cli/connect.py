"""How commands reach the operations: over HTTP, or directly in Redis, at an address or that of the embedded Redis."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from pydantic import SecretStr

from progress_broker.errors import SetupError
from progress_broker.settings import Settings
from progress_cli.caller import caller
from progress_client import address
from progress_client.async_client import AsyncClient
from progress_client.operators.operators import Operators, open_operators

T = TypeVar("T")

PATIENCE_S = 30
"""How long to wait for a server or a Redis that became unavailable, in seconds."""


def client(settings: Settings) -> AsyncClient:
    """Return a client for a command that works both ways."""
    return AsyncClient(settings=settings, patience_s=PATIENCE_S)


@asynccontextmanager
async def operators(settings: Settings) -> AsyncIterator[Operators]:
    """Open what operators' commands ask: a server, or Redis."""
    opened = await open_operators(settings, caller())
    try:
        yield opened
    finally:
        await opened.close()


def ask(settings: Settings, question: Callable[[Operators], Awaitable[T]]) -> T:
    """Return the answer to the one question of an operators' command."""

    async def run() -> T:
        async with operators(settings) as opened:
            return await question(opened)

    return asyncio.run(run())


def locate(settings: Settings) -> Settings:
    """Return the settings with the Redis address to use, for a command that works in Redis itself.

    Raises `SetupError` if there is none.
    """
    if settings.url is not None and settings.redis_url is None:
        raise SetupError(
            "this command works in Redis itself, not through PROGRESS_URL: set PROGRESS_REDIS_URL, or use --redis-url"
        )
    return address.locate(settings)


def at(settings: Settings, redis_url: str) -> Settings:
    """Return the settings with this Redis address."""
    return settings.model_copy(update={"redis_url": SecretStr(redis_url)})
