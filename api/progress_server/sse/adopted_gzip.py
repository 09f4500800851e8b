"""The adopted outlet of a client that accepts gzip."""

import zlib

from progress_broker.stream.outlet import Writer
from progress_server.protocols.adoption import Connection
from progress_server.sse.adopted import AdoptedOutlet
from progress_server.sse.chunked import LAST_CHUNK, chunk
from progress_server.sse.packing import HEADER, Packed, chunked_gzip, ending


class GzipOutlet(AdoptedOutlet):
    """That of a client that accepts gzip."""

    __slots__ = ("_crc", "_size", "encoding")

    def __init__(self, subscription: Writer, connection: Connection, over: int) -> None:
        super().__init__(subscription, connection)
        self._crc = self._size = 0
        self.encoding = chunked_gzip(over)

    def write(self, packed: Packed) -> None:
        """Write what was packed for all; before the first, the header."""
        data, text = packed
        if not self._size:
            data = chunk(HEADER) + data
        self._crc = zlib.crc32(text, self._crc)
        self._size += len(text)
        self._transport.write(data)

    def last(self) -> bytes:
        """Return what ends the gzip stream and the response."""
        header = b"" if self._size else HEADER
        return chunk(header + ending(self._crc, self._size)) + LAST_CHUNK
