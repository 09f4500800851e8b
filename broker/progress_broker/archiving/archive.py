"""The archive: exports of ended operations, which stay when Redis has removed them."""

from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from contextlib import aclosing
from hashlib import blake2s

from progress_broker.archiving.stores import ObjectStore
from progress_broker.errors import NotFound
from progress_broker.transfer.endpoints import OperationCopy
from progress_broker.transfer.files.chunk_source import ChunkSource
from progress_broker.transfer.files.compression import compressor_for, decompressed
from progress_broker.transfer.format import ExportedOperation, ExportHead

SUFFIX = ".ndjson.zst"


def folder_of(id: str) -> str:
    """Return the folder of an operation's objects. Several operations may have had one id, one after another."""
    return f"op/{blake2s(id.encode(), digest_size=1).hexdigest()}/{id}/"


def name_of(operation: ExportedOperation) -> str:
    """Return the name of an operation's object. The same operation has the same name, whoever archives it.

    Names of one id sort as its operations were created.
    """
    created = operation.fields[b"created"].decode()
    return f"{folder_of(operation.id)}{int(created):013d}-{operation.n:010d}{SUFFIX}"


async def compressed(name: str, lines: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield the bytes of a file of this name."""
    compressor = compressor_for(name)
    async for some in lines:
        if part := compressor.compress(some):
            yield part
    yield compressor.flush()


class ArchiveSource:
    """Operations of an archive, by their ids: of each id the one that was created last."""

    def __init__(self, store: ObjectStore, ids: Iterable[str]) -> None:
        self._store, self._ids = store, tuple(ids)

    async def head(self) -> ExportHead:
        """Return the head of the first operation's export."""
        return await (await self._source(self._ids[0])).head()

    async def operations(self) -> AsyncGenerator[OperationCopy]:
        """Yield the operations; raise `NotFound` for one that is not in the archive."""
        for id in self._ids:
            async with aclosing((await self._source(id)).operations()) as copies:
                async for copy in copies:
                    yield copy

    async def _source(self, id: str) -> ChunkSource:
        names = await self._store.names(folder_of(id))
        if not names:
            raise NotFound(f"the archive {self._store.address} has no operation {id}")
        return ChunkSource(decompressed(self._store.get(names[-1])))
