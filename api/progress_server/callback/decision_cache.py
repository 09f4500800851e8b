"""A cache of decisions: requests of one caller within a few seconds ask the back end only once."""

import time
from collections.abc import Awaitable, Callable

from progress_broker.errors import Unauthenticated
from progress_broker.runtime.single_flight import SingleFlight
from progress_server.auth.guard import ClientDisconnect
from progress_server.auth.principal import Principal

MAX_ENTRIES = 10_000


class DecisionCache:
    """Recent decisions, by what the back end was sent. Failures to reach the back end are not cached."""

    def __init__(self, ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._decisions: dict[bytes, tuple[float, Principal | None]] = {}
        self._single_flight = SingleFlight()

    async def get(
        self, key: bytes, ask: Callable[[], Awaitable[Principal]], has_left: Callable[[], bool] = lambda: False
    ) -> Principal:
        """Return the principal from the cache, or else from `ask`. Raise `Unauthenticated` if the caller is not
        allowed, or what `ask` raises.

        Callers with the same key share one call of `ask`. If the caller that made it disconnects, another caller asks
        again.
        """
        known = self._decisions.get(key)
        if known is None or known[0] <= self._clock():
            known = await self._ask(key, ask, has_left)
        if known[1] is None:
            raise Unauthenticated("the back end rejected the caller")
        return known[1]

    async def _ask(
        self, key: bytes, ask: Callable[[], Awaitable[Principal]], has_left: Callable[[], bool]
    ) -> tuple[float, Principal | None]:
        while True:
            try:
                return await self._single_flight.share(key, lambda: self._decide(key, ask))
            except ClientDisconnect:
                if has_left():
                    raise

    async def _decide(self, key: bytes, ask: Callable[[], Awaitable[Principal]]) -> tuple[float, Principal | None]:
        principal: Principal | None
        try:
            principal = await ask()
        except Unauthenticated:
            principal = None
        until = self._clock() + self._ttl_s
        if principal is not None and principal.expires_at is not None:
            until = min(until, principal.expires_at)
        self._decisions.pop(key, None)  # so that the oldest come first
        if len(self._decisions) >= MAX_ENTRIES:
            del self._decisions[next(iter(self._decisions))]
        self._decisions[key] = until, principal
        return self._decisions[key]
