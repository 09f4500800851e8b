"""The probe: proof that what is published comes out of this replica's feeds, got anew every few seconds.

It is published by the same call and the same script as all else, and read by the same reader.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from itertools import cycle
from secrets import token_hex
from typing import Literal

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.model.event import Event

log = logging.getLogger(__name__)

PROOF_PERIODS = 3
"""A probe proves something if it comes back within so many periods, and for as long as that."""

Doubt = Literal["redis away", "redis full", "publish fails", "feed silent"]


class Probe:
    """Publishes to the lanes, one after the other, and notes when what it said comes back."""

    def __init__(
        self,
        send: Callable[[int, str, bytes], Awaitable[None]],
        lanes: int,
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._operation = f"~probe-{token_hex(8)}"
        self.name = self._operation.encode()
        """What it publishes to. An operation's id begins with a letter or a digit."""
        self._send = send
        self._lanes = cycle(range(lanes))
        self._period_s = period_s
        self._clock = clock
        self._proved_at = -math.inf
        self._suspect: Doubt = "redis away"
        self._refused_at = -math.inf  # as Redis was full
        self.full = False
        """Whether Redis had no room for the last probe that it answered."""

    @property
    def doubt(self) -> Doubt | None:
        """Why delivery is in doubt, or None while it is proved."""
        since = self._clock() - PROOF_PERIODS * self._period_s
        if self._proved_at >= since:
            return None
        # Also while the next one is under way, and until one that was taken again is back.
        return "redis full" if self._refused_at >= since else self.suspect

    @property
    def suspect(self) -> Doubt:
        """What is at fault if delivery fails: what did not take the last probe, else the way back."""
        return self._suspect

    async def run(self) -> None:
        """Probe for ever."""
        while True:
            await self.once()
            await asyncio.sleep(self._period_s)

    async def once(self) -> None:
        """Send one."""
        before, self._suspect = self._suspect, "redis away"  # until it answers
        try:
            await self._send(next(self._lanes), self._operation, b"%.3f" % self._clock())
        except StorageUnavailable:
            self._refused_at = -math.inf
            return
        except StorageFull as error:  # which proves nothing
            self._suspect, self._refused_at = "redis full", self._clock()
            if not self.full:
                log.warning("nothing can be published: %s", error.detail)
            self.full = True
            return
        except Exception:  # whatever it is, no publisher fares better
            self._suspect, self._refused_at = "publish fails", -math.inf
            if before != self._suspect:
                log.exception("Redis answers, but what is published is refused")
            return
        if self.full:
            log.info("Redis has room again")
        self._suspect, self.full = "feed silent", False

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
