"""Encodings of frames: plain text, chunks, or gzip; and whether a client accepts gzip.

This code is our own because libraries and HTTP servers encode separately for each connection. Here each event is
encoded once, and the same bytes go to all clients that accept the encoding.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

from progress_broker.model.event import CHILDREN
from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import TEXT

# Chunked transfer coding (RFC 9112, 7.1): HTTP/1.1 needs it for a body whose length is not known in advance.
# By hand, because uvicorn no longer writes to a socket that was adopted.

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return the bytes as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Chunked:
    """Encodes frames that are sent together as one chunk."""

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the chunk."""
        return chunk(TEXT.encode(frames))


CHUNKED = Chunked()


# gzip (RFC 1952), compressed once for all clients: each frame is compressed by itself, and its bytes fit into every
# client's stream.
#
# zlib compresses. The container is written by hand, because Python's `gzip`, and Starlette's middleware, compress for
# one client: each client would cost a compression and the memory of its window.
#
# A compressed frame does not refer to earlier data, and it ends on a byte boundary. So a client that joined later can
# receive the same bytes as any other. Only the trailer differs between clients: the checksum and the length of all that
# the client was sent. Its outlet keeps track of both.

GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\x03\0"
_FLUSHED = b"\0\0\0\xff\xff"
"""An empty block after each frame, as zlib writes on a flush: some readers return no data before they see one.
Go's reader is such. Go's HTTP client, and so Caddy, requests gzip by itself, and decompresses it for clients that did
not request it."""
_WINDOW_BITS, _MEMORY_LEVEL = 13, 5
"""One event compresses as well as with zlib's defaults, 15 and 8, which allocate and clear 256 KiB each time."""

_CONTROL_OVER = 4_096
"""Control frames from this size on are compressed. Only a long list of operations is that large."""


class GzipChunk(NamedTuple):
    """Compressed frames, as passed to an outlet."""

    data: bytes
    text: bytes
    """The same data uncompressed."""

    @property
    def size(self) -> int:
        """The number of bytes to send."""
        return len(self.data)


class Gzip:
    """Encodes frames as a part of a gzip stream.

    Frames under `over` bytes are stored uncompressed: compressing them gains little.
    """

    def __init__(self, over: int) -> None:
        self._over = over

    def encode(self, frames: Sequence[Frame]) -> GzipChunk:
        """Return the part of the stream."""
        return GzipChunk(b"".join([self._pack(frame) for frame in frames]), TEXT.encode(frames))

    def _pack(self, frame: Frame) -> bytes:
        if frame.packed is None:
            wire = frame.wire
            # Control frames have no position and are made for one client. A `children` frame has no position
            # either, but many clients share it.
            over = self._over if frame.position or frame.type == CHILDREN else _CONTROL_OVER
            frame.packed = _stored(wire) if len(wire) < over else _deflated(wire)
        return frame.packed


class ChunkedGzip(Gzip):
    """Encodes frames as gzip in one chunk."""

    def encode(self, frames: Sequence[Frame]) -> GzipChunk:
        """Return the chunk."""
        data, text = super().encode(frames)
        return GzipChunk(chunk(data), text)


gzip = cache(Gzip)
chunked_gzip = cache(ChunkedGzip)  # one instance per setting, because clients share frames by encoding


def trailer(crc: int, size: int) -> bytes:
    """Return the end of a gzip stream, for a text with this CRC-32 and length."""
    return _LAST_BLOCK + struct.pack("<II", crc, size & 0xFFFFFFFF)


def _deflated(text: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -_WINDOW_BITS, _MEMORY_LEVEL)
    return deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH)


def _stored(text: bytes) -> bytes:
    """Return a stored deflate block (RFC 1951, 3.2.4) of up to 65,535 bytes, and the empty block after it."""
    return struct.pack("<BHH", 0, len(text), len(text) ^ 0xFFFF) + text + _FLUSHED


# `Accept-Encoding` (RFC 9110, 12.5.3): whether a client wants gzip. By hand, as Starlette only looks for the word
# "gzip", which is also in `gzip;q=0`, by which a client rejects it.

_MEMBER = re.compile(r"\s*([^\s;]+)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?")


def accepts_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a request accepts gzip and does not prefer `identity`. Header names must be in lower case."""
    text = ",".join(value.decode("latin-1") for name, value in headers if name == b"accept-encoding")
    if "gzip" not in text.lower() and "*" not in text:
        return False
    weights: dict[str, float] = {}
    for member in text.split(","):
        found = _MEMBER.fullmatch(member)
        if found is not None:
            weights[found[1].lower()] = float(found[2] or 1)
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0)))
    return weight > 0 and weight >= weights.get("identity", 0)
