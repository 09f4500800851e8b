"""Parses the response of a connection into blocks, and counts and checks the events of a client."""

import re
from array import array

LIMIT = 1 << 20
"""Maximum latencies kept. When it is reached, every other one is dropped, and from then on half as many are kept."""
SIZE_LINE = 1024
"""Maximum bytes of a chunk's size line. A longer line means that the server sends data without chunk framing."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_RETRY = re.compile(rb"^retry: ?(\d+)$", re.MULTILINE)
_ID = re.compile(rb"^id: ?(.*)$", re.MULTILINE)
_DIGITS = re.compile(rb"\s*(\d+)")
_RECONNECT = b"event: reconnect\n"
_BOOKMARK = b"event: bookmark\n"
_SNAPSHOT = b"event: snapshot\n"
_TIME = b'"ts_ns":'


class Response:
    """One HTTP response: its head, then its body without chunk framing, as complete blocks."""

    __slots__ = ("_carry", "_head", "_left", "_length", "_rest", "chunked", "ended", "status")

    def __init__(self) -> None:
        self.status = 0  # until the head is complete
        self.chunked = self.ended = False
        self._head = b""
        self._rest = b""  # the incomplete size line of a chunk
        self._left = 0  # remaining bytes of a chunk, including its line break
        self._length: int | None = None  # remaining bytes of a body with Content-Length
        self._carry = b""  # the incomplete last block

    def feed(self, data: bytes) -> bytes:
        """Add data; return the completed blocks, with LF instead of CR LF. May raise `ValueError`."""
        if not self.status:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return b""
            self._read_head(head)
        if self.chunked:
            data = self._unchunked(data)
        elif self._length is not None:
            data = data[: self._length]
            self._length -= len(data)
            self.ended = not self._length
        if self._carry:
            data = self._carry + data
        if b"\r" in data:  # a CR at the end, without its LF yet, stays in the incomplete block
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n") + 2
        if end < 2:
            self._carry = data
            return b""
        self._carry = data[end:]
        return data[:end]

    def _read_head(self, head: bytes) -> None:
        match = _STATUS.match(head)
        if match is None:
            raise ValueError(f"invalid HTTP response: {head[:80]!r}")
        self.status, self._head = int(match[1]), b""
        self.chunked = _CHUNKED.search(head) is not None
        length = _LENGTH.search(head)
        if self.status == 204:
            self._length = 0
        elif length is not None and not self.chunked:
            self._length = int(length[1])

    def _unchunked(self, data: bytes) -> bytes:
        if not self._left and not self._rest:  # usually a read is exactly one chunk
            line = data.find(b"\r\n")
            if 0 < line <= 8 and _size(data[:line]) == len(data) - line - 4 > 0:
                return data[line + 2 : -2]
        if self._rest:
            data, self._rest = self._rest + data, b""
        parts, at, end = [], 0, len(data)
        while at < end:
            if not self._left:
                line = data.find(b"\r\n", at)
                if line < 0:
                    self._rest = data[at:]
                    if len(self._rest) > SIZE_LINE:
                        raise ValueError(f"invalid chunk: {self._rest[:80]!r}")
                    break
                size = _size(data[at:line])
                at, self._left = line + 2, size + 2
                self.ended = self.ended or not size
            taken = min(self._left, end - at)
            if self._left > 2:
                parts.append(data[at : at + min(taken, self._left - 2)])
            at += taken
            self._left -= taken
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Tally:
    """The counts of all connections of a load since `mark`."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.mark()

    def mark(self) -> None:
        self.events = self.bytes = self.reads = self.gaps = self.repeats = 0
        self.latency_max_ns = 0
        self._latencies = array("q")
        self._every = 1
        self._skipped = 0

    def late(self, ns: int) -> None:
        if ns > self.latency_max_ns:
            self.latency_max_ns = ns
        self._skipped += 1
        if self._skipped >= self._every:
            self._skipped = 0
            self._latencies.append(ns)
            if len(self._latencies) >= self._limit:
                self._latencies = self._latencies[::2]
                self._every *= 2

    def latencies_ms(self) -> dict[str, float]:
        ordered = sorted(self._latencies)
        if not ordered:
            return {}
        told = {
            name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
        }
        return {**told, "max": self.latency_max_ns / 1e6}


class Follower:
    """One client over all of its connections: its events since `mark`, its position, and errors in the order."""

    __slots__ = ("_key", "_latest", "_tally", "events", "last", "retry_ms")

    def __init__(self, tally: Tally, key: bytes) -> None:
        self.events = 0
        self.last: int | None = None
        """The highest sequence number received."""
        self.retry_ms: int | None = None
        """The retry delay from the server, if it asked the client to reconnect."""
        self._tally, self._key = tally, key
        self._latest = b""

    def take(self, blocks: bytes, now_ns: int) -> None:
        """Count the blocks of one read. The latency of the first event is measured."""
        if _RECONNECT in blocks or _BOOKMARK in blocks:
            blocks = self._without_control(blocks)
        lines = blocks.count(b"\ndata:") + blocks.startswith(b"data:")
        if not lines:
            return
        tally = self._tally
        if lines == 1:
            count = 1
            self._check(_number(blocks, self._key))
        else:
            events = [block for block in blocks.split(b"\n\n") if block.startswith(b"data:") or b"\ndata:" in block]
            count = len(events)
            for event in events:
                self._check(_number(event, self._key))
        self._latest = blocks
        self.events += count
        tally.events += count
        tally.reads += 1
        sent_ns = _number(blocks, _TIME)
        if sent_ns is not None and _SNAPSHOT not in blocks:  # a snapshot repeats old data
            tally.late(now_ns - sent_ns)

    def position(self) -> str | None:
        """Return the last position received."""
        found = _ID.findall(self._latest)
        return found[-1].decode() if found else None

    def moved_to(self, number: int | None) -> None:
        """Reset its position: it continues after the event of this number or, with None, anywhere."""
        self.last, self._latest = number, b""

    def _check(self, number: int | None) -> None:
        if number is None:
            return
        last = self.last
        if last is None or number == last + 1:
            self.last = number
        elif number <= last:
            self._tally.repeats += 1
        else:
            self._tally.gaps += 1
            self.last = number

    def _without_control(self, blocks: bytes) -> bytes:
        kept = []
        for block in blocks.split(b"\n\n"):
            if block.startswith(_RECONNECT) or b"\n" + _RECONNECT in block:
                retry = _RETRY.search(block)
                self.retry_ms = int(retry[1]) if retry else 0
            elif block and _BOOKMARK not in block:
                kept.append(block + b"\n\n")
        return b"".join(kept)


def _number(text: bytes, key: bytes) -> int | None:
    at = text.find(key)
    if at < 0:
        return None
    at += len(key)
    end = text.find(b",", at)
    try:
        return int(text[at:end])
    except ValueError:  # the last field of an object
        match = _DIGITS.match(text, at)
        return int(match[1]) if match else None


def _size(line: bytes) -> int:
    return int(line.partition(b";")[0], 16)
