"""Rate limits by token bucket: new streams of a replica, authorization calls per address, messages of a WebSocket.

When all clients reconnect at once, open streams must not suffer, and every client must get its stream in the end. So
clients beyond the rate are rejected, each with its own time to retry.
"""

import random
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import AtCapacity, RateLimited
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.context import LiveSettings
from progress_server.http.paths import class_of
from progress_server.http.rejections import reject

BURST_S = 1.0
"""Burst after an idle time, in seconds of the rate."""

LONGEST_S = 30.0
"""Maximum retry delay. Without it, clients that never retry would push the turns of others hours ahead."""

MAX_ADDRESSES = 10_000
"""Maximum addresses tracked at a time. Beyond it, the least recently seen address is dropped."""


class TokenBucket:
    """A token bucket with a virtual queue: a rejected caller gets the delay after which its turn comes."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._tokens = rate * BURST_S
        self._at = self._turn = clock()

    def take(self) -> float:
        """Take a token and return 0; or, without a token, return the seconds after which to retry."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._at) * self.rate, self.rate * BURST_S)
        self._at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0
        self._turn = min(max(self._turn, now) + 1 / self.rate, now + LONGEST_S)
        wait_s = self._turn - now
        return wait_s if wait_s < LONGEST_S else random.uniform(LONGEST_S / 2, LONGEST_S)


class AdmissionMiddleware:
    """Middleware that limits new streams per second. It runs before all expensive work: a rejection must be cheap."""

    def __init__(
        self, app: ASGIApp, live: LiveSettings, clock: Callable[[], float] = time.monotonic, *, tally: Tally
    ) -> None:
        self._app, self._live, self._tally = app, live, tally
        self._bucket = TokenBucket(live.handshakes_per_s, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on. If it opens a stream and exceeds the rate, reject it with a delay after which to retry."""
        wait_s = self._take() if class_of(scope).streams else 0
        if wait_s:
            self._tally.rejected["at-capacity"] += 1
            self._tally.limited["handshakes"] += 1
            detail = "too many new streams at this server (PROGRESS_HANDSHAKES_PER_S); retry after the given delay"
            await reject(AtCapacity(detail, retry_s=wait_s), scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _take(self) -> float:
        self._bucket.rate = self._live.handshakes_per_s
        return self._bucket.take()


class PerAddressRate:
    """A token bucket per address. Without a rate there is no limit."""

    def __init__(self, rate: float, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._tally, self._clock = rate, tally, clock
        self._buckets: dict[str, TokenBucket] = {}

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Return what takes the rate of new settings."""
        return lambda: self._change(settings.callback_requests_per_s)

    def _change(self, rate: float) -> None:
        if rate != self._rate:
            self._rate = rate
            self._buckets.clear()

    def check(self, address: str) -> None:
        """Count a call. Raise `RateLimited`, with the delay after which to retry, if there were too many."""
        if not self._rate:
            return
        bucket = self._buckets.pop(address, None) or TokenBucket(self._rate, self._clock)
        if len(self._buckets) >= MAX_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[address] = bucket  # at the end: most recently seen
        wait_s = bucket.take()
        if wait_s:
            self._tally.limited["questions"] += 1
            raise RateLimited("too many requests from your address; retry after the given delay", retry_s=wait_s)


class DebtBucket:
    """A token bucket that may go below zero: the caller then waits."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens = burst
        self._at = clock()

    def take(self) -> float:
        """Take a token. Return the seconds to wait for it: 0 if it was available."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)
