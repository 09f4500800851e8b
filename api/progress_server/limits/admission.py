"""How much may come in over time: streams of a replica, questions of an address, messages of a socket.

When all clients come back at once, those who are there already must not suffer, nor all wait for ever: the rest are
told when to come, each at a moment of its own.
"""

import random
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import AtCapacity, RateLimited
from progress_broker.runtime.tally import Tally
from progress_server.http.paths import class_of
from progress_server.http.refusals import reject

BURST_S = 1.0
"""So many seconds' worth of streams are admitted at once, after a calm."""

LONGEST_S = 30.0
"""Nobody is told to come later than this: those who never come, or always do, would make others wait for hours."""

MOST = 10_000
"""So many addresses are told apart at a time; the one longest not heard of makes room."""


class Gate:
    """A bucket of places, and a queue that nobody stands in: who finds none is told when its turn would come."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._places = rate * BURST_S
        self._at = self._turn = clock()

    def admit(self) -> float:
        """Take a place and return 0; or return the seconds to come back after."""
        now = self._clock()
        self._places = min(self._places + (now - self._at) * self._rate, self._rate * BURST_S)
        self._at = now
        if self._places >= 1:
            self._places -= 1
            return 0
        self._turn = min(max(self._turn, now) + 1 / self._rate, now + LONGEST_S)
        wait_s = self._turn - now
        return wait_s if wait_s < LONGEST_S else random.uniform(LONGEST_S / 2, LONGEST_S)


class Admission:
    """Middleware before all that costs something: to refuse must cost far less than to admit."""

    def __init__(self, app: ASGIApp, rate: float, clock: Callable[[], float] = time.monotonic, *, tally: Tally) -> None:
        self._app, self._tally = app, tally
        self._gate = Gate(rate, clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, unless it asks for a stream and there is no place."""
        wait_s = self._gate.admit() if class_of(scope).streams else 0
        if wait_s:
            self._tally.refused["at-capacity"] += 1
            self._tally.limited["handshakes"] += 1
            detail = "too many streams are being opened just now: retry in a moment"
            await reject(AtCapacity(detail, retry_s=wait_s), scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Threshold:
    """A gate for each address. Without a rate all stand open."""

    def __init__(self, rate: float, tally: Tally, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._tally, self._clock = rate, tally, clock
        self._gates: dict[str, Gate] = {}

    def step_over(self, address: str) -> None:
        """Count a question; raise `RateLimited` with a turn to come back at if there were too many."""
        if not self._rate:
            return
        gate = self._gates.pop(address, None) or Gate(self._rate, self._clock)
        if len(self._gates) >= MOST:
            del self._gates[next(iter(self._gates))]
        self._gates[address] = gate  # last
        wait_s = gate.admit()
        if wait_s:
            self._tally.limited["questions"] += 1
            raise RateLimited("too many come in from your address just now: retry in a moment", retry_s=wait_s)


class Allowance:
    """A bucket of tokens, which may run into debt."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._tokens = burst
        self._at = clock()

    def take(self) -> float:
        """Take one; return the seconds until it would have been there: 0 if it was."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._burst) - 1
        self._at = now
        return max(0.0, -self._tokens / self._rate)
