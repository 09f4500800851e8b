"""Follows an operation to its end, whatever comes between: the one loop for each backend."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from progress_broker.errors import BrokerError, is_temporary
from progress_broker.runtime.backoff import backoff_s
from progress_broker.runtime.tasks import SwallowedCancels
from progress_client.backend import Backend, Bookmark, ComeBack, Start
from progress_client.events import End, Event, Reset, Snapshot

log = logging.getLogger("progress_client")


async def watch(
    reach: Callable[[], Awaitable[Backend]],
    operation: str,
    after: str | None,
    types: frozenset[str] | None,
    patience_s: float | None,
) -> AsyncGenerator[Event]:
    """Yield each event after a position once, in order, up to the end.

    It resumes after whatever cut it off. If nothing is heard for `patience_s`, it raises the last error.
    """
    start, patience, end_shown = Start(after), Patience(operation, patience_s), False
    cancels = SwallowedCancels()
    while True:
        try:
            async with aclosing((await reach()).follow(operation, start, types)) as following:
                async for event in following:
                    cancels.check()
                    patience.heard()
                    state = event.state if isinstance(event, Snapshot | Reset) else None
                    is_whole = state is not None and state.done and event.position == state.position
                    if not is_whole:
                        start = Start(event.position, seen=True)
                    elif end_shown:
                        continue  # cut off before the end: that can't be resumed from the snapshot
                    if isinstance(event, Bookmark):
                        continue
                    end_shown = is_whole
                    yield event
                    if isinstance(event, End):
                        return
            return
        except ComeBack as pause:
            patience.heard()
            log.debug("operation %s: the server said %s; resuming", operation, pause)
            await asyncio.sleep(pause.after_s)
        except BrokerError as error:
            if not is_temporary(error):
                raise
            await asyncio.sleep(patience.failed(error))


class Patience:
    """How long to wait for a server or a Redis that does not answer."""

    def __init__(self, operation: str, most_s: float | None) -> None:
        self._operation, self._most_s = operation, most_s
        self._since: float | None = None
        self._tries = 0

    def heard(self) -> None:
        """Begin anew: there was an answer."""
        if self._since is not None:
            log.info("operation %s: following it again", self._operation)
        self._since, self._tries = None, 0

    def failed(self, error: BrokerError) -> float:
        """Return in how many seconds to try again; raise the error if it has lasted too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            lasting = "" if self._most_s is None else f" for {self._most_s:g} s"
            log.warning("operation %s: %s; retrying%s", self._operation, error.detail, lasting)
        left_s = float("inf") if self._most_s is None else self._since + self._most_s - now
        if left_s <= 0:
            raise error
        self._tries += 1
        return min(left_s, error.retry_s or backoff_s(self._tries))
