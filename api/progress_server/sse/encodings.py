"""How frames become bytes: as a body's text, as chunks, or as gzip; and which of these a client accepts.

All of it is made here because libraries and HTTP servers encode for each connection anew. Here each event is encoded
once, and the same bytes go to all clients that accept the encoding.
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

# Chunked transfer coding (RFC 9112, 7.1): what HTTP/1.1 needs around a body of unknown length. By hand, as uvicorn no
# longer writes to a socket that was adopted (`api/progress_server/protocols/adoption.py`).

LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return the bytes as one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Chunked:
    """Frames that leave together as one chunk."""

    def encode(self, frames: Sequence[Frame]) -> bytes:
        """Return the chunk."""
        return chunk(TEXT.encode(frames))


CHUNKED = Chunked()


# gzip (RFC 1952), made once for all: a frame is deflated by itself, and its bytes fit into every client's stream.
#
# zlib compresses. The container is written by hand, as Python's `gzip`, and middleware such as Starlette's, compress
# for one client: that would cost a deflate and the memory of its window for each.
#
# Nothing in a frame's bytes refers to what came before, and they end on a byte's border; so a client that joined in the
# middle can be sent them like any other. What differs from one client to the next is only the end: the checksum and the
# length of all it was sent, which its outlet keeps.

GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\x03\0"
_FLUSHED = b"\0\0\0\xff\xff"
"""An empty block, which ends each frame, as it ends what zlib flushes: some readers hand nothing on before they see it.
Go's is such, and its HTTP client asks for gzip unasked: that of Caddy, which unpacks it again for who did not."""
_WINDOW_BITS, _MEMORY_LEVEL = 13, 5
"""One event is packed as well as with zlib's own 15 and 8, which want a quarter of a megabyte, cleared, each time."""

_CONTROL_OVER = 4_096
"""Only a long list of operations comes to that."""


class Packed(NamedTuple):
    """What an outlet that packs is handed."""

    data: bytes
    text: bytes
    """What the client will have unpacked."""

    @property
    def size(self) -> int:
        """How many bytes go out."""
        return len(self.data)


class Gzip:
    """Frames as a piece of a gzip stream. Those under `over` bytes are put in as they are: deflating gains little."""

    def __init__(self, over: int) -> None:
        self._over = over

    def encode(self, frames: Sequence[Frame]) -> Packed:
        """Return the piece."""
        return Packed(b"".join([self._pack(frame) for frame in frames]), TEXT.encode(frames))

    def _pack(self, frame: Frame) -> bytes:
        if frame.packed is None:
            wire = frame.wire
            # Control frames have no position, and are made for one client. What is told of children is for many.
            over = self._over if frame.position or frame.type == CHILDREN else _CONTROL_OVER
            frame.packed = _stored(wire) if len(wire) < over else _deflated(wire)
        return frame.packed


class ChunkedGzip(Gzip):
    """The same as one chunk."""

    def encode(self, frames: Sequence[Frame]) -> Packed:
        """Return the chunk."""
        data, text = super().encode(frames)
        return Packed(chunk(data), text)


gzip = cache(Gzip)
chunked_gzip = cache(ChunkedGzip)  # one for each setting, as clients share what is of one encoding


def ending(crc: int, size: int) -> bytes:
    """Return what ends a gzip stream whose text has this CRC-32 and this length."""
    return _LAST_BLOCK + struct.pack("<II", crc, size & 0xFFFFFFFF)


def _deflated(text: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -_WINDOW_BITS, _MEMORY_LEVEL)
    return deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH)


def _stored(text: bytes) -> bytes:
    """Return a block of deflate's that holds up to 65,535 bytes as they are (RFC 1951, 3.2.4), and the empty one."""
    return struct.pack("<BHH", 0, len(text), len(text) ^ 0xFFFF) + text + _FLUSHED


# `Accept-Encoding` (RFC 9110, 12.5.3): whether a client wants gzip. By hand, as Starlette only looks for the word
# "gzip", which is also in `gzip;q=0`, by which a client refuses it.

_MEMBER = re.compile(r"\s*([^\s;]+)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?")


def accepts_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the headers of a request, their names in lower case, admit gzip, and prefer nothing to it."""
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
