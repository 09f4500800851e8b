"""The threshold: how many questions the callers of one address may cause, before it is known who they are."""

import time
from collections.abc import Callable

from progress_broker.errors import RateLimited
from progress_broker.runtime.tally import Tally
from progress_server.limits.admission import Gate

MOST = 10_000
"""So many addresses are told apart at a time; the one longest not heard of makes room."""


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
            raise RateLimited("too many come in from your address just now: come back in a moment", retry_s=wait_s)
