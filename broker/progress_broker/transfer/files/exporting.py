"""Makes the bytes of an export out of a source."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from progress_broker.errors import Gone, NotFound
from progress_broker.transfer.endpoints import OperationCopy, OperationSource
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import OperationEnd


async def export_lines(
    source: OperationSource, ended: Callable[[OperationEnd], None] = lambda _: None
) -> AsyncGenerator[bytes]:
    """Yield the lines of an export, several at once. `ended` is called with what the end of each operation says."""
    writer = ExportWriter()
    yield writer.head(await source.head())
    async with aclosing(source.operations()) as copies:
        async for copy in copies:
            async with aclosing(lines_of(copy, writer, ended)) as parts:
                async for lines in parts:
                    yield lines
    yield writer.file_end()


async def lines_of(
    copy: OperationCopy, writer: ExportWriter, ended: Callable[[OperationEnd], None] = lambda _: None
) -> AsyncGenerator[bytes]:
    """Yield the lines of an operation. Its first line waits for the first events."""
    begun = False
    try:
        async with aclosing(copy.events()) as events:
            async for part in events:
                lines = writer.events(part) if begun else writer.operation(copy.operation) + writer.events(part)
                begun = True
                yield lines
    except (Gone, NotFound):
        if begun:
            yield writer.leave_out()
        return
    line = b"" if begun else writer.operation(copy.operation)
    last, end = writer.end()
    yield line + last
    ended(end)
