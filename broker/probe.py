"""The probe: proof that what is published comes out of this replica's feeds, got anew every few seconds."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from itertools import cycle
from secrets import token_hex
from typing import Literal

from broker.errors import StorageFull, StorageUnavailable
from broker.events import Event

log = logging.getLogger(__name__)

PROOF_PERIODS = 3
"""A probe proves something if it comes back within so many periods, and for as long as that."""

Doubt = Literal["redis away", "feed silent"]


class Probe:
    """Sends entries to the feeds, one lane after the other, and notes when they come back."""

    def __init__(
        self,
        send: Callable[[int, bytes, bytes], Awaitable[None]],
        lanes: int,
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = b"~probe-" + token_hex(8).encode()
        """What its entries are told by. An operation's id begins with a letter or a digit."""
        self._send = send
        self._lanes = cycle(range(lanes))
        self._period_s = period_s
        self._clock = clock
        self._proved_at = -math.inf
        self._answered = False

    @property
    def doubt(self) -> Doubt | None:
        """Why delivery is in doubt, or None while it is proved."""
        if self._clock() - self._proved_at <= PROOF_PERIODS * self._period_s:
            return None
        return self.suspect

    @property
    def suspect(self) -> Doubt:
        """What is at fault if delivery fails: Redis if it did not take the last probe, else the way back."""
        return "feed silent" if self._answered else "redis away"

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            await self.once()
            await asyncio.sleep(self._period_s)

    async def once(self) -> None:
        """Send one."""
        self._answered = False
        try:
            await self._send(next(self._lanes), self.name, b"%.3f" % self._clock())
        except StorageUnavailable:
            return
        except StorageFull:  # nothing is delivered as nothing can be published, and what is kept can be read
            self._proved_at = self._clock()
        self._answered = True

    def heard(self, event: Event) -> None:
        """Take back one that has come by."""
        now = self._clock()
        try:
            took_s = now - float(event.data)
        except ValueError:  # a foreign hand wrote it
            return
        if 0 <= took_s <= PROOF_PERIODS * self._period_s:
            self._proved_at = now
        else:
            log.warning("what is published takes %.1f s to come out of the feed", took_s)
