"""The open streams: they are named, counted and logged. A shutdown waits here until all have closed."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from secrets import token_hex

from progress_broker.runtime.tally import Tally
from progress_broker.stream.delivery import Start, connection_name
from progress_broker.stream.stream import Mode, Stream

log = logging.getLogger(__name__)

_SAME_MOMENT_S = 0.01
"""Streams that open within this time share one float for it: one of its own would take 32 bytes of an idle stream."""

_LOGGED_REASONS = frozenset({"stuck", "broken"})  # close reasons that may need attention: logged at level info


class StreamRegistry:
    """Counts and logs the start and the end of each stream."""

    def __init__(self, tally: Tally, clock: Callable[[], float]) -> None:
        self._tally, self._clock = tally, clock
        self.replica, self._numbers = token_hex(4), itertools.count(1)
        self._count = 0
        self._moment = clock()
        self._on_close: dict[Stream, Callable[[str], None]] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return self._count

    async def wait_until_empty(self) -> None:
        """Wait until no stream is open."""
        await self._is_empty.wait()

    def name(self) -> str:
        """Return a new connection name. It is unique over all replicas."""
        return connection_name(self.replica, next(self._numbers))

    def made(self, stream: Stream) -> None:
        """Count a new stream, which has no position yet, and give it a name."""
        stream.number = next(self._numbers)
        self._count += 1
        self._is_empty.clear()

    def reset(self, stream: Stream, start: Start, reason: str) -> None:
        """Count and log that a client can't resume from its position."""
        self._tally.resets[reason] += 1
        fields = _fields(stream) | {"from": start.position, "reason": reason}
        log.info("stream %s of operation %s can't resume from %s: %s", *fields.values(), extra=fields)

    def opened(self, stream: Stream, start: Start) -> None:
        """Count and log that a stream has started at its position."""
        if stream.mode is Mode.CLOSED:  # a shutdown has closed it meanwhile
            return
        now = self._clock()
        if now - self._moment > _SAME_MOMENT_S:
            self._moment = now
        stream.opened_at = self._moment
        self._tally.opened[start.kind] += 1
        if log.isEnabledFor(logging.DEBUG):
            fields = _fields(stream) | {"from": start.position or start.kind}
            log.debug("stream %s of operation %s opened, from %s", *fields.values(), extra=fields)

    def when_closed(self, stream: Stream, on_close: Callable[[str], None]) -> None:
        """Call `on_close` with the reason when a stream closes; at once if it closed before its response began."""
        if stream.mode is Mode.CLOSED:
            on_close("rejected")
        else:
            self._on_close[stream] = on_close

    def closed(self, stream: Stream, reason: str) -> None:
        """Count and log that a stream has closed, and why."""
        self._count -= 1
        if not self._count:
            self._is_empty.set()
        if self._on_close and (on_close := self._on_close.pop(stream, None)) is not None:
            on_close(reason)
        if stream.opened_at is None:
            return
        self._tally.closed[reason] += 1
        level = logging.INFO if reason in _LOGGED_REASONS else logging.DEBUG
        if log.isEnabledFor(level):
            lasted_s = self._clock() - stream.opened_at
            fields = _fields(stream) | {"lasted_s": round(lasted_s, 3), "reason": reason}
            more = {"client": stream.outlet.client or None, "percent": stream.percent}
            extra = fields | {name: value for name, value in more.items() if value is not None}
            log.log(level, "stream %s of operation %s closed after %.1f s: %s", *fields.values(), extra=extra)


def _fields(stream: Stream) -> dict[str, object]:
    return {"connection": stream.connection, "operation": stream.operation}
