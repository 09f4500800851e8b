"""What came over a connection, counted: one response's bytes become whole blocks, and a client's blocks are checked."""

import re
from array import array

LIMIT = 1 << 20
"""Latencies kept, at most: at that, every other one is dropped, and half as many are taken from then on."""
SIZE_LINE = 1024
"""Bytes a chunk's size line may have, or a server writes what it did not frame."""
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_RETRY = re.compile(rb"^retry: ?(\d+)$", re.MULTILINE)
_ID = re.compile(rb"^id: ?(.*)$", re.MULTILINE)
_DIGITS = re.compile(rb"\s*(\d+)")
_RECONNECT = b"event: reconnect\n"
_SNAPSHOT = b"event: snapshot\n"
_TIME = b'"ts_ns":'


class Response:
    """One HTTP response: its head, then its body with the framing of chunks taken off, as blocks that are whole."""

    __slots__ = ("_carry", "_head", "_left", "_length", "_rest", "chunked", "ended", "status")

    def __init__(self) -> None:
        self.status = 0  # until the head is whole
        self.chunked = self.ended = False
        self._head = b""
        self._rest = b""  # of a chunk's size line
        self._left = 0  # of a chunk, with the line break after it
        self._length: int | None = None  # of a body that says it
        self._carry = b""  # of a block

    def feed(self, data: bytes) -> bytes:
        """Take what was read; return the blocks it completes, with LF for CR LF. May raise `ValueError`."""
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
        if b"\r" in data:  # a CR at the end, whose LF is yet to come, stays in what is carried over
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
            raise ValueError(f"no HTTP response: {head[:80]!r}")
        self.status, self._head = int(match[1]), b""
        self.chunked = _CHUNKED.search(head) is not None
        length = _LENGTH.search(head)
        if self.status == 204:
            self._length = 0
        elif length is not None and not self.chunked:
            self._length = int(length[1])

    def _unchunked(self, data: bytes) -> bytes:
        if not self._left and not self._rest:  # nearly always a read is one chunk
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
                        raise ValueError(f"no chunk: {self._rest[:80]!r}")
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
    """What all connections of a load came to since the mark."""

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
    """One client, over however many connections: its events since the mark, its place, and what broke the order."""

    __slots__ = ("_key", "_latest", "_tally", "events", "last", "retry_ms")

    def __init__(self, tally: Tally, key: bytes) -> None:
        self.events = 0
        self.last: int | None = None
        """The highest sequence number it had."""
        self.retry_ms: int | None = None
        """How long it was sent away for, when it was."""
        self._tally, self._key = tally, key
        self._latest = b""

    def take(self, blocks: bytes, now_ns: int) -> None:
        """Count blocks that came with one read. Of those the first event is asked how late it is."""
        if _RECONNECT in blocks:
            blocks = self._sent_away(blocks)
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
        if sent_ns is not None and _SNAPSHOT not in blocks:  # which repeats what was sent long ago
            tally.late(now_ns - sent_ns)

    def position(self) -> str | None:
        """Return the last position it was given."""
        found = _ID.findall(self._latest)
        return found[-1].decode() if found else None

    def moved_to(self, number: int | None) -> None:
        """Forget its place: it is to go on after the event of this number, or anywhere."""
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

    def _sent_away(self, blocks: bytes) -> bytes:
        kept = []
        for block in blocks.split(b"\n\n"):
            if block.startswith(_RECONNECT) or b"\n" + _RECONNECT in block:
                retry = _RETRY.search(block)
                self.retry_ms = int(retry[1]) if retry else 0
            elif block:
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
    except ValueError:  # the last of an object's fields
        match = _DIGITS.match(text, at)
        return int(match[1]) if match else None


def _size(line: bytes) -> int:
    return int(line.partition(b";")[0], 16)
