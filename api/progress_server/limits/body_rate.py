"""Metering: a body that does not say how long it is goes on no faster than its sender may send.

Each piece has to get its turn before anybody reads it. So what is taken is bounded by the rate however many connections
send at once; what still waits is only what the server holds of each.
"""

import asyncio
import random
from collections.abc import Callable

from starlette.types import Message, Receive

from progress_broker.errors import RateLimited
from progress_broker.limits.gcra import LONGEST_S, Buckets
from progress_broker.runtime.tally import Tally

PIECE_BYTES = 65_536
"""What may go on at a time; by so much more than its rate and a burst a caller may get at a replica."""

PATIENCE_S = 5.0
"""How long a piece of a body waits for its turn that is to be whole before anything is done with it."""


class Meter:
    """Receives one body. One that is `lines` may go on for ever, and waits; another is refused when it is too much."""

    def __init__(
        self, receive: Receive, sent: Buckets, who: str, clock: Callable[[], float], tally: Tally, *, lines: bool
    ) -> None:
        self._receive, self._sent, self._who, self._clock = receive, sent, who, clock
        self._tally = tally
        self._longest_s = LONGEST_S if lines else PATIENCE_S
        self._lines = lines
        self._most = max(1, min(PIECE_BYTES, int(sent.rate.burst)))
        self._rest = b""
        self._more = False

    async def __call__(self) -> Message:
        """Return the next piece, once it has had its turn. Raises `RateLimited`."""
        if not self._rest:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._rest, self._more = message.get("body", b""), message.get("more_body", False)
        piece, self._rest = self._rest[: self._most], self._rest[self._most :]
        await self._turn(len(piece))
        return {"type": "http.request", "body": piece, "more_body": self._more or bool(self._rest)}

    async def _turn(self, size: int) -> None:
        sent, who = self._sent, self._who
        while (wait_s := sent.wait_s(who, size, now := self._clock())) > self._longest_s:
            if not self._lines:
                self._tally.limited["sent-bytes"] += 1
                raise RateLimited("you send more than you may in so short a time: send less at a time", retry_s=wait_s)
            await asyncio.sleep(random.uniform(0, LONGEST_S))  # more of a debt would be forgotten, and so be free
        sent.charge(who, size, now)  # before the wait, so that those who come now come after
        await asyncio.sleep(wait_s)
