"""The probe: checks every few seconds that published events come back from this replica's feeds.

It uses the same call, the same script and the same reader as all other events.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from itertools import cycle
from secrets import token_hex
from typing import Literal

from progress_broker.errors import StorageFull, StorageReadOnly, StorageUnavailable
from progress_broker.model.event import Event

log = logging.getLogger(__name__)

PROOF_PERIODS = 3
"""A probe must come back within this many periods. Its proof is valid for the same time."""

NotReadyReason = Literal["redis away", "redis replica", "redis full", "publish fails", "feed silent"]


class Probe:
    """Publishes to one lane after the other, and records when its events come back."""

    def __init__(
        self,
        send: Callable[[int, str, bytes], Awaitable[None]],
        lanes: int,
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._operation = f"~probe-{token_hex(8)}"
        self.name = self._operation.encode()
        """The name that it publishes to. No operation has it: operation ids begin with a letter or a digit."""
        self._send = send
        self._lanes = cycle(range(lanes))
        self._period_s = period_s
        self._clock = clock
        self._proved_at = -math.inf
        self._suspected_reason: NotReadyReason = "redis away"
        self._rejected_at = -math.inf  # when Redis was full, or a replica
        self._read_only = ""  # why Redis rejects writes, as logged last
        self.detail = ""
        """Why Redis could not be reached or written to at the last probe, if that was the cause."""
        self.full = False
        """Whether Redis was full at the last probe that it answered."""

    @property
    def not_ready_reason(self) -> NotReadyReason | None:
        """Why delivery may be failing, or None while it is proven to work."""
        return None if self._is_recent(self._proved_at) else self.suspected_reason

    @property
    def suspected_reason(self) -> NotReadyReason:
        """The likely cause if delivery fails: the reason why the last probe was not stored, else the feed."""
        # Also while the next probe is in progress, and until an accepted probe has come back.
        if self._is_recent(self._rejected_at):
            return "redis replica" if self._read_only else "redis full"
        return self._suspected_reason

    def _is_recent(self, at: float) -> bool:
        return at >= self._clock() - PROOF_PERIODS * self._period_s

    async def run(self) -> None:
        """Send probes until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(self._period_s)

    async def once(self) -> None:
        """Send one probe."""
        before, self._suspected_reason = self._suspected_reason, "redis away"  # until it answers
        try:
            await self._send(next(self._lanes), self._operation, b"%.3f" % self._clock())
        except StorageReadOnly as error:
            self._suspected_reason, self._rejected_at, self.detail = "redis replica", self._clock(), error.detail
            if error.detail != self._read_only:  # a rejected write does not name the master; later probes do
                log.warning("events can't be published: %s", error.detail)
            self._read_only = error.detail
            return
        except StorageUnavailable as error:
            self._rejected_at, self.detail = -math.inf, error.detail
            return
        except StorageFull as error:  # this proves nothing about delivery
            self._suspected_reason, self._rejected_at, self.detail = "redis full", self._clock(), ""
            if not self.full:
                log.warning("events can't be published: %s", error.detail)
            self.full, self._read_only = True, ""
            return
        except Exception:  # whatever the error is, other publishers get it, too
            self._suspected_reason, self._rejected_at, self.detail = "publish fails", -math.inf, ""
            if before != self._suspected_reason:
                log.exception("Redis answers, but publishing fails")
            return
        if self.full:
            log.info("Redis has memory again; events can be published")
        if self._read_only:
            log.info("the Redis at PROGRESS_REDIS_URL is a master again; events can be published")
            self._rejected_at = -math.inf
        self._suspected_reason, self.full, self._read_only, self.detail = "feed silent", False, "", ""

    def received(self, event: Event) -> None:
        """Receive a probe from the feed."""
        now = self._clock()
        try:
            took_s = now - float(event.data)
        except ValueError:  # another program wrote it
            return
        if 0 <= took_s <= PROOF_PERIODS * self._period_s:
            self._proved_at = now
        else:
            log.warning("a published event took %.1f s to come back from the feed", took_s)
