"""Compressed exports: written by the name of the file, and read by what the file begins with."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any, Protocol

from progress_broker.extras import require
from progress_broker.transfer.files.reader import DamagedExport

GZIP_NAMES, ZSTANDARD_NAMES = (".gz",), (".zst",)
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_GZIP_FORMAT = 31  # for zlib: with the header of gzip


class Compressor(Protocol):
    """Compresses a file, part by part."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what can be written so far."""

    def flush(self) -> bytes:
        """Return the rest."""


class Uncompressed:
    """Leaves the file as it is."""

    def compress(self, data: bytes, /) -> bytes:
        """Return the data."""
        return data

    def flush(self) -> bytes:
        """Return nothing: there is no rest."""
        return b""


def compressor_for(name: str) -> Compressor:
    """Return what compresses a file of this name."""
    if name.endswith(GZIP_NAMES):
        return zlib.compressobj(1, wbits=_GZIP_FORMAT)
    if name.endswith(ZSTANDARD_NAMES):
        require("operators", "a file that ends with .zst")
        import zstandard

        return zstandard.ZstdCompressor().compressobj()
    return Uncompressed()


async def decompressed(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    """Yield the chunks of a file as they are without compression; raise `DamagedExport` if that fails."""
    begin, decompress = b"", None
    async for chunk in chunks:
        if decompress is None:
            begin += chunk
            if len(begin) < len(_ZSTANDARD):
                continue
            chunk, decompress = begin, _decompressor(begin)
        for part in _parts(decompress, chunk):
            yield part
    if decompress is None and begin:
        yield begin


def _parts(decompress: Any, chunk: bytes) -> list[bytes]:
    try:
        return [part for part in decompress(chunk) if part]
    except Exception as error:  # each library has its own
        raise DamagedExport(f"the file can't be decompressed: {error}") from None


def _decompressor(begin: bytes) -> Any:
    if begin.startswith(_GZIP):
        return _Gunzip().parts
    if begin.startswith(_ZSTANDARD):
        require("operators", "a file that is compressed with zstandard")
        import zstandard

        decompress = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress
        return lambda chunk: [decompress(chunk)]
    return lambda chunk: [chunk]


class _Gunzip:
    """Decompresses gzip, also of several files one after another."""

    def __init__(self) -> None:
        self._one = zlib.decompressobj(_GZIP_FORMAT)

    def parts(self, chunk: bytes) -> list[bytes]:
        parts = []
        while chunk:
            if self._one.eof:
                self._one = zlib.decompressobj(_GZIP_FORMAT)
            parts.append(self._one.decompress(chunk))
            chunk = self._one.unused_data
        return parts
