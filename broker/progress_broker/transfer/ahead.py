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


async def with_waits(parts: AsyncGenerator[bytes], every_s: float, wait: bytes) -> AsyncGenerator[bytes]:
    """Yield what a generator yields; after its first part also `wait`, whenever another one takes longer than that."""
    begun = False
    task = asyncio.create_task(_next(parts))
    try:
        while True:
            done, _ = await asyncio.wait((task,), timeout=every_s if begun else None)
            if not done:
                yield wait
                continue
            part = task.result()
            if part is _END:
                return
            task = asyncio.create_task(_next(parts))
            begun = True
            yield part
    finally:
        await end(task)
        await parts.aclose()
