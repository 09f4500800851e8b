"""The operations of an export that comes in chunks: from a file, a pipe or a request."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing

from progress_broker.errors import Gone
from progress_broker.transfer.files.reader import DamagedExport, ExportReader, Part
from progress_broker.transfer.format import ExportedEvent, ExportedOperation, ExportHead, OperationEnd, OperationVoid


class ChunkSource:
    """The operations of an export, in its order. It can be read once.

    With `partial`, operations that are damaged or cut short are left out, and `damage` says so. Without, everything
    that it yields raises `DamagedExport` at the first line that is wrong.
    """

    def __init__(self, chunks: AsyncIterable[bytes], *, partial: bool = False) -> None:
        self._reader = ExportReader(partial=partial)
        self._parts = self._read(chunks)
        self._head: ExportHead | None = None

    @property
    def damage(self) -> Sequence[str]:
        """What was wrong, with `partial`."""
        return self._reader.damage

    async def head(self) -> ExportHead:
        """Return the head of the export."""
        if self._head is None:
            head = await anext(self._parts)
            if not isinstance(head, ExportHead):
                raise DamagedExport("this is no export: it has no head")
            self._head = head
        return self._head

    async def operations(self) -> "AsyncGenerator[ChunkCopy]":
        """Yield the operations. What is not read of one is passed over."""
        await self.head()
        async with aclosing(self._parts):
            async for part in self._parts:
                if isinstance(part, ExportedOperation):
                    copy = ChunkCopy(part, self._parts)
                    yield copy
                    async for _ in copy.rest():
                        pass

    async def _read(self, chunks: AsyncIterable[bytes]) -> AsyncGenerator[Part]:
        async for chunk in chunks:
            for part in self._reader.feed(chunk):
                yield part
        for part in self._reader.close():
            yield part


class ChunkCopy:
    """An operation of an export."""

    def __init__(self, operation: ExportedOperation, parts: AsyncGenerator[Part]) -> None:
        self.operation = operation
        self._parts, self._ended = parts, False

    async def events(self) -> AsyncGenerator[Sequence[ExportedEvent]]:
        """Yield the events in parts. Raises `Gone` if the export takes the operation back."""
        async with aclosing(self.rest()) as rest:
            async for part in rest:
                if isinstance(part, OperationVoid):
                    raise Gone(f"operation {part.id} is not whole in the export: {part.why}")
                if isinstance(part, list):
                    yield part

    async def rest(self) -> AsyncGenerator[Part]:
        """Yield what is not read yet, up to the operation's end."""
        while not self._ended:
            part = await anext(self._parts)
            self._ended = isinstance(part, OperationEnd | OperationVoid)
            yield part
