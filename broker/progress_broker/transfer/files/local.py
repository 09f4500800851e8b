"""Exports in files of this machine, and in pipes."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from progress_broker.errors import InvalidInput
from progress_broker.transfer.files.chunk_source import ChunkSource
from progress_broker.transfer.files.compression import compressor_for, decompressed

PIPE = "-"
"""The name that stands for standard input or output."""
_CHUNK = 256 * 1024


def open_source(name: str, *, whole: bool = True, told: Callable[[int], None] | None = None) -> ChunkSource:
    """Return the operations of a file or of standard input. `told` is called with the size of what was read.

    Raises `InvalidInput` if the file can't be opened. Unless it has to be `whole`, what is damaged in it is left out.
    """
    return ChunkSource(decompressed(_chunks(_open(name), told)), partial=not whole)


async def check_file(name: str) -> None:
    """Read a file to its end; raise `DamagedExport` or `InvalidInput` if it is not a whole export."""
    async with aclosing(open_source(name).operations()) as copies:
        async for _ in copies:
            pass


async def write_file(name: str, chunks: AsyncIterable[bytes]) -> int:
    """Write an export to a file, or to standard output; return its size.

    The file appears under its name when it is whole. Raises `InvalidInput` if it can't be written.
    """
    if name == PIPE:
        return await _write(sys.stdout.buffer, name, chunks)
    try:
        with _appearing(name) as file:
            return await _write(file, name, chunks)
    except OSError as error:
        raise InvalidInput(f"{name} can't be written: {error.strerror}") from None


@contextmanager
def _appearing(name: str) -> Iterator[BinaryIO]:
    """Open a file that gets its name at the end of the block, unless the block fails."""
    part = Path(f"{name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(name)
    finally:
        part.unlink(missing_ok=True)


async def _write(file: BinaryIO, name: str, chunks: AsyncIterable[bytes]) -> int:
    compressor, pending, size, waiting = compressor_for(name), list[bytes](), 0, 0

    def write(data: bytes) -> int:
        compressed = compressor.compress(data)
        return file.write(compressed)

    async for chunk in chunks:
        pending.append(chunk)
        waiting += len(chunk)
        if waiting >= _CHUNK:
            size += await asyncio.to_thread(write, b"".join(pending))
            pending, waiting = [], 0
    size += write(b"".join(pending)) + file.write(compressor.flush())
    file.flush()
    return size


async def _chunks(file: BinaryIO, told: Callable[[int], None] | None) -> AsyncGenerator[bytes]:
    with file:
        read = await reader_of(file)
        while chunk := await read(_CHUNK):
            if told is not None:
                told(len(chunk))
            yield chunk


async def reader_of(file: BinaryIO) -> Callable[[int], Awaitable[bytes]]:
    """Return what reads a file. From a pipe it does not use a thread, which could not be interrupted."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return partial(asyncio.to_thread, file.read)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    return reader.read


def _open(name: str) -> BinaryIO:
    if name == PIPE:
        return sys.stdin.buffer
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise InvalidInput(f"{name} can't be read: {error.strerror}") from None
