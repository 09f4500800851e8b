"""The streams that are open: counted, told of in the log, and waited for when they are to be none."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from secrets import token_hex

from progress_broker.runtime.tally import Tally
from progress_broker.stream.delivery import Start
from progress_broker.stream.stream import Mode, Stream

log = logging.getLogger(__name__)

_NOTABLE = frozenset({"stuck", "broken"})  # ends that somebody may have to look into


class Streams:
    """What is told of streams' lives."""

    def __init__(self, tally: Tally, clock: Callable[[], float]) -> None:
        self._tally, self._clock = tally, clock
        self._replica, self._numbers = token_hex(4), itertools.count(1)
        self._count = 0
        self._tell: dict[Stream, Callable[[str], None]] = {}
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return self._count

    async def none(self) -> None:
        """Wait until none is open."""
        await self._none.wait()

    def name(self) -> str:
        """Return a connection's name, as no other of any replica has."""
        return f"{self._replica}-{next(self._numbers)}"

    def made(self, stream: Stream) -> None:
        """Count one more, which is yet to be placed, and name it."""
        stream.connection = stream.delivery.connection or self.name()
        self._count += 1
        self._none.clear()

    def reset(self, stream: Stream, start: Start, reason: str) -> None:
        """Tell that a client can't resume from its position."""
        self._tally.resets[reason] += 1
        said = _told(stream) | {"from": start.position, "reason": reason}
        log.info("stream %s of operation %s can't resume after %s: %s", *said.values(), extra=said)

    def opened(self, stream: Stream, start: Start) -> None:
        """Tell that one stands where its client wants to begin."""
        if stream.mode is Mode.CLOSED:  # the hub drained meanwhile
            return
        stream.opened_at = self._clock()
        self._tally.opened[start.kind] += 1
        if log.isEnabledFor(logging.DEBUG):
            said = _told(stream) | {"from": start.position or start.kind}
            log.debug("stream %s of operation %s opens, from %s", *said.values(), extra=said)

    def when_closed(self, stream: Stream, tell: Callable[[str], None]) -> None:
        """Have this called with the reason when one ends; at once if it has, before its response began."""
        if stream.mode is Mode.CLOSED:
            tell("refused")
        else:
            self._tell[stream] = tell

    def closed(self, stream: Stream, reason: str) -> None:
        """Tell that one has ended, and why."""
        self._count -= 1
        if not self._count:
            self._none.set()
        if self._tell and (tell := self._tell.pop(stream, None)) is not None:
            tell(reason)
        if stream.opened_at is None:
            return
        self._tally.closed[reason] += 1
        level = logging.INFO if reason in _NOTABLE else logging.DEBUG
        if log.isEnabledFor(level):
            lasted_s = self._clock() - stream.opened_at
            said = _told(stream) | {"lasted_s": round(lasted_s, 3), "reason": reason}
            log.log(level, "stream %s of operation %s closes after %.1f s: %s", *said.values(), extra=said)


def _told(stream: Stream) -> dict[str, object]:
    return {"connection": stream.connection, "operation": stream.operation}
