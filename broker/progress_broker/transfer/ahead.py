"""Reads ahead: the next part of something is fetched while the one before it is used."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from progress_broker.runtime.tasks import end

T = TypeVar("T")

_END: Any = object()


async def read_ahead(parts: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Yield what a generator yields. It computes the next part meanwhile."""
    task = asyncio.create_task(_next(parts))
    try:
        while (part := await task) is not _END:
            task = asyncio.create_task(_next(parts))
            yield part
    finally:
        await end(task)
        await parts.aclose()


async def _next(parts: AsyncGenerator[T]) -> T:
    return await anext(parts, _END)
