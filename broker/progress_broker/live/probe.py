"""The probes: they check every few seconds that published events come back from this replica's feeds.

They use the same call, the same script and the same reader as all other events. Each server has one; what it proves
holds for all lanes of the server.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle
from secrets import token_hex
from typing import Literal

from progress_broker.errors import StorageFull, StorageReadOnly, StorageUnavailable
from progress_broker.model.event import Event

log = logging.getLogger(__name__)

PROOF_PERIODS = 3
"""A probe must come back within this many periods. Its proof is valid for the same time."""

NotReadyReason = Literal["redis away", "redis replica", "redis full", "publish fails", "feed silent"]


Send = Callable[[int, str, bytes], Awaitable[None]]
"""Publish data to a lane, as to an operation of a name."""


class Probe:
    """Publishes to one lane of a server after the other, and records when its events come back."""

    def __init__(
        self,
        send: Send,
        lanes: Sequence[int],
        period_s: float,
        clock: Callable[[], float],
        refusals: Counter[str] | None = None,
    ) -> None:
        self._refusals: Counter[str] = Counter() if refusals is None else refusals
        self._operation = f"~probe-{token_hex(8)}"
        self.name = self._operation.encode()
        """The name that it publishes to. No operation has it: operation ids begin with a letter or a digit."""
        self._send = send
        self._lanes = cycle(lanes)
        self._period_s = period_s
        self._clock = clock
        self.proved_at = -math.inf
        """When a probe came back last, by the clock."""
        self._suspected_reason: NotReadyReason = "redis away"
        self._rejected_at = -math.inf  # when Redis was full, or a replica
        self._read_only = ""  # why Redis rejects writes, as logged last
        self.detail = ""
        """Why Redis could not be reached or written to at the last probe, if that was the cause."""
        self.full = False
        """Whether Redis was full at the last probe that it answered."""
        self.refused = ""
        """Why the last probe was refused: full, read-only, away or failed; empty if it was not."""
        self.sending = False

    @property
    def not_ready_reason(self) -> NotReadyReason | None:
        """Why delivery may be failing, or None while it is proven to work."""
        return None if self._is_recent(self.proved_at) else self.suspected_reason

    @property
    def suspected_reason(self) -> NotReadyReason:
        """The likely cause if delivery fails: the reason why the last probe was not stored, else the feed."""
        # Also while the next probe is in progress, and until an accepted probe has come back.
        if self._is_recent(self._rejected_at):
            return "redis replica" if self._read_only else "redis full"
        return self._suspected_reason

    def _is_recent(self, at: float) -> bool:
        return at >= self._clock() - PROOF_PERIODS * self._period_s

    def inherit(self, earlier: "Probe") -> None:
        """Take over what an earlier probe of its lanes has found out."""
        self.proved_at, self._suspected_reason = earlier.proved_at, earlier._suspected_reason
        self._rejected_at, self._read_only = earlier._rejected_at, earlier._read_only
        self.detail, self.full, self.refused = earlier.detail, earlier.full, earlier.refused

    async def once(self) -> None:
        """Send one probe."""
        self.sending = True
        try:
            await self._once()
        finally:
            self.sending = False

    async def _once(self) -> None:
        before, self._suspected_reason = self._suspected_reason, "redis away"  # until it answers
        try:
            await self._send(next(self._lanes), self._operation, repr(self._clock()).encode())
        except StorageReadOnly as error:
            self._refuse("read-only")
            self._suspected_reason, self._rejected_at, self.detail = "redis replica", self._clock(), error.detail
            if error.detail != self._read_only:  # a rejected write does not name the master; later probes do
                log.warning("events can't be published: %s", error.detail)
            self._read_only = error.detail
            return
        except StorageUnavailable as error:
            self._refuse("away")
            self._rejected_at, self.detail = -math.inf, error.detail
            return
        except StorageFull as error:  # this proves nothing about delivery
            self._refuse("full")
            self._suspected_reason, self._rejected_at, self.detail = "redis full", self._clock(), ""
            if not self.full:
                log.warning("events can't be published: %s", error.detail)
            self.full, self._read_only = True, ""
            return
        except Exception:  # whatever the error is, other publishers get it, too
            self._refuse("failed")
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
        self.refused = ""

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self._refusals[reason] += 1

    def received(self, event: Event) -> None:
        """Receive a probe from the feed."""
        now = self._clock()
        try:
            took_s = now - float(event.data)
        except ValueError:  # another program wrote it
            return
        if 0 <= took_s <= PROOF_PERIODS * self._period_s:
            self.proved_at = now
        else:
            log.warning("a published event took %.1f s to come back from the feed", took_s)


class Probes:
    """The probes of all servers. A server that does not answer delays its own probe only."""

    def __init__(
        self,
        send: Send,
        lanes_by_node: Callable[[], Sequence[Sequence[int]]],
        period_s: float,
        clock: Callable[[], float],
        handlers: dict[bytes, Callable[[Event], None]],
        refusals: Counter[str] | None = None,
    ) -> None:
        self._refusals = refusals
        self._send, self._period_s, self._clock = send, period_s, clock
        self._lanes_by_node, self._handlers = lanes_by_node, handlers
        self._turned_at: float | None = None
        self._of: dict[int, Probe] = {}
        self._by_lanes: dict[tuple[int, ...], Probe] = {}
        self._divide()

    def __getitem__(self, lane: int) -> Probe:
        """Return the probe of a lane's server."""
        return self._of[lane]

    @property
    def full(self) -> bool:
        """Whether a server was full at the last probe that it answered."""
        return any(probe.full for probe in self._by_lanes.values())

    @property
    def refused(self) -> str:
        """Why the last probe of a server was refused; empty if none was."""
        return next((probe.refused for probe in self._by_lanes.values() if probe.refused), "")

    @property
    def turning(self) -> bool:
        """Whether the loop that sends probes runs as it should, whatever they find. Before it has begun it does."""
        return self._turned_at is None or self._turned_at >= self._clock() - PROOF_PERIODS * self._period_s

    async def run(self) -> None:
        """Send probes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._turned_at = self._clock()
                self._divide()
                for probe in self._by_lanes.values():
                    if not probe.sending:
                        tasks.create_task(probe.once())
                await asyncio.sleep(self._period_s)

    def _divide(self) -> None:
        """Have a probe for each server: lanes may have moved to another one."""
        groups = [tuple(lanes) for lanes in self._lanes_by_node()]
        if groups == list(self._by_lanes):
            return
        before, self._by_lanes = self._by_lanes, {}
        for lanes in groups:
            probe = before.pop(lanes) if lanes in before else self._new(lanes)
            self._by_lanes[lanes] = probe
            self._of |= dict.fromkeys(lanes, probe)
        for probe in before.values():
            del self._handlers[probe.name]

    def _new(self, lanes: tuple[int, ...]) -> Probe:
        probe = Probe(self._send, lanes, self._period_s, self._clock, self._refusals)
        known = [self._of[lane] for lane in lanes if lane in self._of]
        if known:
            probe.inherit(min(known, key=lambda earlier: earlier.proved_at))
        self._handlers[probe.name] = probe.received
        return probe
