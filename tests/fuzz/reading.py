"""A client's side of a connection: what arrives before it breaks, at any byte, and how much room there is."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import orjson

from progress_broker.bundle.bundle import Bundle
from progress_broker.stream.outlet import TEXT
from progress_broker.stream.subscription import Subscription

CUT_AFTER_BYTES = (300, 2_000, 9_000, 40_000, 1 << 40)
ROOMS_BYTES = (1 << 40, 1 << 40, 3_000, 20_000)


class Told(NamedTuple):
    """An event as a browser has it: its name, data and the id of it or of the last one before."""

    name: str
    data: dict[str, Any]
    id: str | None


class Connection:
    """An outlet that breaks after so many bytes, and that has room for so many until they are read."""

    kind = "fuzz"
    client = ""
    encoding = TEXT

    def __init__(self, stream: Bundle | Subscription, hear: Callable[[Told], None], random: Random | None) -> None:
        self._stream, self._hear, self._random = stream, hear, random
        self._left = random.choice(CUT_AFTER_BYTES) if random else 1 << 40
        self._room = random.choice(ROOMS_BYTES) if random else 1 << 40
        self._held = 0
        self._text = b""
        self._id: str | None = None
        self.over = False
        self.was_slow = False

    # What the stream calls

    def write(self, data: bytes) -> None:
        if self.over:
            return
        self._read(data[: self._left])
        self._left -= len(data)
        self._held += len(data)
        if self._left <= 0:
            self.over = True
            asyncio.get_running_loop().call_soon(self._stream.close)
        elif self._held >= self._room:
            self.was_slow = True
            self._stream.pause_writing()

    def close(self) -> None:
        self.over = True

    abort = close

    # What the client does

    async def stay(self, random: Random) -> None:
        """Read now and then, for a while, and leave."""
        for _ in range(random.randrange(1, 60)):
            if self.over:
                break
            await asyncio.sleep(0.01)
            if self._held and random.random() < 0.5:
                self._held = 0
                self._stream.resume_writing()
        self.leave()

    def leave(self) -> None:
        self.over = True
        self._stream.close()

    def _read(self, data: bytes) -> None:
        self._text += data
        while b"\n\n" in self._text:
            block, self._text = self._text.split(b"\n\n", 1)
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
            if b"id" in fields:
                self._id = fields[b"id"].decode()
            if b"event" in fields and fields[b"event"] != b"bookmark":  # which moves the position alone
                self._hear(Told(fields[b"event"].decode(), orjson.loads(fields[b"data"]), self._id))
