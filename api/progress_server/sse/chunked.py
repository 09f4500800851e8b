"""Chunked transfer coding (RFC 9112, 7.1): what HTTP/1.1 needs around frames that have no length told before."""

from collections.abc import Sequence

from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import TEXT

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
