"""Exports in memory."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from progress_broker.model.operation import Operation
from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_broker.transfer.endpoints import ImportOptions, Outcome, Result
from progress_broker.transfer.files.chunk_source import ChunkSource
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.files.reader import ExportReader
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget
from tests.keyspace import keys_of_all
from tests.transfer.fleet import make_fleet

ALL = Filters()


async def export(store: Store, filters: Filters = ALL) -> bytes:
    """Return the export of what matches."""
    return b"".join([lines async for lines in export_lines(RedisSource(store, filters))])


def parts_of(text: bytes) -> list[Any]:
    """Return the parts of an export."""
    reader = ExportReader()
    return [*reader.feed(text), *reader.close()]


def source_of(text: bytes, *, size: int = 1000, partial: bool = False) -> ChunkSource:
    """Return the operations of an export, which comes in chunks of this size."""

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(text), size):
            yield text[at : at + size]

    return ChunkSource(chunks(), partial=partial)


async def import_into(store: Store, text: bytes, **options: Any) -> list[Outcome]:
    """Import an export; return what came of each operation."""
    target = RedisTarget(store)
    return [outcome async for outcome in target.store(source_of(text), ImportOptions(**options))]


def results(outcomes: Sequence[Outcome]) -> dict[str, Result]:
    return {outcome.id: outcome.result for outcome in outcomes}


def shown(operation: Operation) -> dict[str, Any]:
    children = {"operations": {"__all__": {"expires_at"}}}
    return operation.model_dump(exclude={"expires_at": True, "children": children})  # the server decides


async def moved_fleet(store: Store) -> bytes:
    """Make operations, export them, and empty Redis, but for what it was set up with."""
    await make_fleet(store)
    text = await export(store)
    await forget_all(store)
    return text


async def forget_all(store: Store) -> None:
    keys = [key for key in await keys_of_all(store.connections) if not key.endswith(b":meta")]
    for key in keys:
        await store.connections.commands.delete(key)


async def listed(store: Store, **filters: Any) -> set[str]:
    return {operation.id for operation in (await find_page(store, Filters(**filters), limit=100)).operations}
