"""The queue of requests to a back end. A limited number is sent at a time, some wait, and the others are rejected with
a delay after which to retry.

Callers of one address can't hold up those of others: they have no more than half of the slots, and those who wait are
served in turn, one of each address. This is made here because asyncio's `Semaphore` and `Queue` serve in the order of
arrival, so that one address could take every slot, and they can't say when a caller that is rejected may retry.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from progress_broker.errors import AuthorizerUnavailable

T = TypeVar("T")
Wait = Callable[[Awaitable[Any]], Awaitable[Any]]
"""Waits for an awaitable; may raise earlier, for example if the client disconnects."""

LONGEST_S = 30.0
"""The maximum retry delay."""

_MAX_WAITING_PER_SLOT = 16
"""Maximum callers that wait before a new one, per slot."""

_WEIGHT = 0.1
"""Weight of the newest request in the moving average of the requests' duration."""


async def _to_the_end(waiting: Awaitable[Any]) -> Any:
    return await waiting


class FairQueue(Generic[T]):
    """Slots, and the callers that wait for one. A caller that would have to wait too long is rejected at once."""

    def __init__(
        self,
        slots: Iterable[T],
        longest_wait_s: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        shared: bool = False,
    ) -> None:
        self._idle = list(slots)
        self._slots = len(self._idle)
        self._each = max(1, self._slots // 2) if shared else self._slots
        self._longest_wait_s = longest_wait_s
        self._clock = clock
        self._served: Counter[str] = Counter()
        # By address, the one whose turn is next first; of each, the one that came first.
        self._waiting: dict[str, dict[asyncio.Future[T], None]] = {}
        self._average_s = 0.0
        self._turn = clock()

    @asynccontextmanager
    async def slot(self, address: str = "", wait: Wait = _to_the_end) -> AsyncIterator[T]:
        """Hold a slot during the block. If none becomes free in time, raise `AuthorizerUnavailable`, with a delay to
        retry.

        `wait` is used to wait for a slot. If it raises, the caller leaves the queue with that error.
        """
        item = await self._acquire(address, wait)
        began = self._clock()
        try:
            yield item
        finally:
            self._average_s += _WEIGHT * (self._clock() - began - self._average_s)
            self._release(item, address)

    async def _acquire(self, address: str, wait: Wait) -> T:
        if self._idle and self._served[address] < self._each:  # callers that wait have as many as they may
            return self._take(address)
        ahead = self._ahead(address)
        if ahead > _MAX_WAITING_PER_SLOT * self._slots or ahead * self._each_s > self._longest_wait_s:
            raise self._queue_full()
        turn: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(address, {})[turn] = None
        try:
            async with asyncio.timeout(self._longest_wait_s):
                await wait(turn)
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # the slot became free at the same moment
                self._release(turn.result(), address)
            else:
                self._give_up(turn, address)
            if isinstance(error, TimeoutError):
                raise self._queue_full() from None
            raise
        return turn.result()

    def _take(self, address: str) -> T:
        self._served[address] += 1
        return self._idle.pop()  # the one left last, whose connection is likeliest to be open

    def _release(self, item: T, address: str) -> None:
        self._idle.append(item)
        self._served[address] -= 1
        if not self._served[address]:
            del self._served[address]
        self._serve_next()

    def _serve_next(self) -> None:
        for address in tuple(self._waiting):
            if not self._idle:
                return
            if self._served[address] < self._each:
                turns = self._waiting.pop(address)
                turn = next((it for it in turns if not it.done()), None)  # one that is has given up just now
                if turn is not None:
                    del turns[turn]
                    turn.set_result(self._take(address))
                if turns:
                    self._waiting[address] = turns  # behind the others

    def _give_up(self, turn: "asyncio.Future[T]", address: str) -> None:
        turns = self._waiting[address]
        del turns[turn]
        if not turns:
            del self._waiting[address]

    def _ahead(self, address: str) -> int:
        """Return how many callers are served before a new one: from each address at most as many as from its own."""
        ours = len(self._waiting.get(address, ()))
        return 1 + sum(min(len(theirs), ours + (at != address)) for at, theirs in self._waiting.items())

    def _queue_full(self) -> AuthorizerUnavailable:
        detail = "too many callers are waiting for the back end that authorizes them: retry in a moment"
        return AuthorizerUnavailable(detail, retry_s=self._next_turn_s())

    @property
    def _each_s(self) -> float:
        """The expected time until the next caller is served."""
        return self._average_s / self._slots

    def _next_turn_s(self) -> float:
        """Return the delay after which the next rejected caller should retry: later than those rejected before it."""
        now = self._clock()
        self._turn = min(max(self._turn, now + self._longest_wait_s) + self._each_s, now + LONGEST_S)
        wait_s = self._turn - now
        return wait_s if wait_s < LONGEST_S else random.uniform(LONGEST_S / 2, LONGEST_S)
