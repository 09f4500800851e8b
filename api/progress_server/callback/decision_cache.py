"""A cache of decisions: one question serves the calls of a few seconds, so that polling costs a back end little."""

import time
from collections.abc import Awaitable, Callable

from progress_broker.errors import Unauthenticated
from progress_broker.runtime.single_flight import SingleFlight
from progress_server.auth.guard import ClientDisconnect
from progress_server.auth.principal import Principal

MAX_ENTRIES = 10_000


class DecisionCache:
    """Recent decisions, by what the back end was told. That it could not be asked is not cached."""

    def __init__(self, kept_s: float, clock: Callable[[], float] = time.time) -> None:
        self._kept_s = kept_s
        self._clock = clock
        self._verdicts: dict[bytes, tuple[float, Principal | None]] = {}
        self._flights = SingleFlight()

    async def get(
        self, key: bytes, ask: Callable[[], Awaitable[Principal]], has_left: Callable[[], bool] = lambda: False
    ) -> Principal:
        """Return the principal, asked for now unless it is cached; raise `Unauthenticated`, or what asking raises.

        Callers with one key share a question. If the caller that asked disconnects, another one asks again.
        """
        known = self._verdicts.get(key)
        if known is None or known[0] <= self._clock():
            known = await self._asked(key, ask, has_left)
        if known[1] is None:
            raise Unauthenticated("the back end does not allow it")
        return known[1]

    async def _asked(
        self, key: bytes, ask: Callable[[], Awaitable[Principal]], has_left: Callable[[], bool]
    ) -> tuple[float, Principal | None]:
        while True:
            try:
                return await self._flights.share(key, lambda: self._found(key, ask))
            except ClientDisconnect:
                if has_left():
                    raise

    async def _found(self, key: bytes, ask: Callable[[], Awaitable[Principal]]) -> tuple[float, Principal | None]:
        principal: Principal | None
        try:
            principal = await ask()
        except Unauthenticated:
            principal = None
        until = self._clock() + self._kept_s
        if principal is not None and principal.expires_at is not None:
            until = min(until, principal.expires_at)
        self._verdicts.pop(key, None)  # so that the oldest come first
        if len(self._verdicts) >= MAX_ENTRIES:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[key] = until, principal
        return self._verdicts[key]
