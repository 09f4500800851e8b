"""The adopted outlet of a client that accepts gzip."""

import zlib

from progress_broker.stream.outlet import OutletOwner
from progress_server.protocols.extensions import Connection
from progress_server.sse.adopted import AdoptedOutlet
from progress_server.sse.encodings import GZIP_HEADER, LAST_CHUNK, GzipChunk, chunk, chunked_gzip, trailer


class GzipOutlet(AdoptedOutlet):
    """The outlet of a client that accepts gzip."""

    __slots__ = ("_crc", "_head", "_size", "encoding")

    def __init__(self, subscription: OutletOwner, connection: Connection, over: int) -> None:
        super().__init__(subscription, connection)
        self._head = connection.head
        self._crc = self._size = 0
        self.encoding = chunked_gzip(over)

    def write(self, packed: GzipChunk) -> None:
        """Write compressed frames, which all clients share. The gzip header goes before the first."""
        data, text = packed
        if not self._size:
            data = self.head() + chunk(GZIP_HEADER) + data
        self._crc = zlib.crc32(text, self._crc)
        self._size += len(text)
        self._transport.write(data)

    def head(self) -> bytes:
        """Return the response's head if it was not written yet."""
        head, self._head = self._head, b""
        return head

    def last(self) -> bytes:
        """Return the bytes that end the gzip stream and the response."""
        header = b"" if self._size else GZIP_HEADER
        return chunk(header + trailer(self._crc, self._size)) + LAST_CHUNK
