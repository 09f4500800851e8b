"""Rate limit for request bodies without Content-Length: they are read no faster than the caller may send.

Each piece waits for its turn before it is passed on. So the rate holds however many connections send at once. What
waits is only what the server buffers for each connection.
"""

import asyncio
import random
from collections.abc import Callable

from starlette.types import Message, Receive

from progress_broker.errors import RateLimited
from progress_broker.limits.gcra import LONGEST_S, Buckets
from progress_broker.runtime.tally import Tally

PIECE_BYTES = 65_536
"""Size of a piece. At one replica a caller can exceed its rate and burst by at most this much."""

PATIENCE_S = 5.0
"""How long a piece may wait for its turn, for a body that is read completely before it is handled."""


class BodyRateLimiter:
    """Receives one body at the caller's rate.

    With `lines` (NDJSON, which may have no end) it waits as long as needed. Any other body is rejected if a piece
    would have to wait too long.
    """

    def __init__(
        self, receive: Receive, sent: Buckets, caller: str, clock: Callable[[], float], tally: Tally, *, lines: bool
    ) -> None:
        self._receive, self._sent, self._caller, self._clock = receive, sent, caller, clock
        self._tally = tally
        self._longest_s = LONGEST_S if lines else PATIENCE_S
        self._lines = lines
        rate = sent.rate_of(caller)
        self._most = PIECE_BYTES if rate is None else max(1, min(PIECE_BYTES, int(rate.burst)))
        self._rest = b""
        self._more = False

    async def __call__(self) -> Message:
        """Return the next piece when the caller's rate allows it; raise `RateLimited` if that would take too long."""
        if not self._rest:
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._rest, self._more = message.get("body", b""), message.get("more_body", False)
        piece, self._rest = self._rest[: self._most], self._rest[self._most :]
        await self._turn(len(piece))
        return {"type": "http.request", "body": piece, "more_body": self._more or bool(self._rest)}

    async def _turn(self, size: int) -> None:
        sent, caller = self._sent, self._caller
        while (wait_s := sent.wait_s(caller, size, now := self._clock())) > self._longest_s:
            if not self._lines:
                self._tally.limited["sent-bytes"] += 1
                raise RateLimited(
                    "request body exceeds your limit of bytes sent per second; send less at a time, or more slowly",
                    retry_s=wait_s,
                )
            await asyncio.sleep(
                random.uniform(0, LONGEST_S)
            )  # a bucket forgets any larger debt, so those bytes would be free
        sent.charge(caller, size, now)  # before the wait, so that later callers queue behind this one
        await asyncio.sleep(wait_s)
