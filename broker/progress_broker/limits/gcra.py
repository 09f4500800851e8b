"""Rate limits by GCRA: each caller has a bucket, which is stored as one number, the time when it is full again.

The bucket is in this process, so no request waits for Redis. What was spent is reported to Redis afterwards
(`broker/progress_broker/limits/limiter.py`), and the reply includes what was spent at other replicas.
This code is our own because rate-limit libraries ask Redis before each request, or know one process only.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from progress_broker.nodes.calls import Call
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import SPEND

MAX_BUCKETS = 100_000
"""The maximum number of callers with a bucket of their own; further callers share one bucket."""

LONGEST_S = 30.0
"""The maximum debt of a caller. There can be a debt, because a body may cost more than the bucket had."""


_GRAIN_S = 1e-6  # the unit that Redis counts in; smaller differences are rounding errors


class Rate(NamedTuple):
    """How fast a bucket fills, and its capacity."""

    per_s: float
    burst: float

    @property
    def burst_s(self) -> float:
        """The time that an empty bucket needs to fill."""
        return self.burst / self.per_s


class Bucket:
    """One caller's bucket. It starts full."""

    __slots__ = ("_full_at", "unsettled_s")

    def __init__(self) -> None:
        self._full_at = float("-inf")
        self.unsettled_s = 0.0
        """What was spent since the last report to Redis, as the time that it takes to refill."""

    def deficit_s(self, now: float) -> float:
        """Return the time until the bucket is full."""
        return max(0.0, self._full_at - now)

    def wait_s(self, rate: Rate, cost: float, now: float) -> float:
        """Return the time until the bucket has enough for a cost; 0 if it has."""
        wait_s = self.deficit_s(now) + min(cost / rate.per_s, rate.burst_s) - rate.burst_s
        return wait_s if wait_s > _GRAIN_S else 0.0

    def left(self, rate: Rate, now: float) -> int:
        """Return how much may be spent now."""
        return max(0, int(rate.burst - self.deficit_s(now) * rate.per_s))

    def spend(self, rate: Rate, cost: float, now: float) -> None:
        """Spend a cost, even if the bucket does not have enough."""
        cost_s = cost / rate.per_s
        self._full_at = min(max(self._full_at, now) + cost_s, now + rate.burst_s + LONGEST_S)
        self.unsettled_s += cost_s

    def settled(self, deficit_s: float, now: float) -> None:
        """Set the deficit that all replicas share, plus what was spent here since the report."""
        self._full_at = now + deficit_s + self.unsettled_s

    def put_back(self, charge_s: float, now: float) -> None:
        """Keep a charge that could not be reported, minus what has been refilled meanwhile."""
        self.unsettled_s = min(self.unsettled_s + charge_s, self.deficit_s(now))


class Buckets:
    """The buckets of all callers for one rate. A rate of None is no limit."""

    def __init__(self, rate: Rate | None) -> None:
        self.rate = rate
        self.own: Mapping[str, Rate | None] = {}
        """The rates of callers that have another one."""
        self._buckets: dict[str, Bucket] = {}
        self._rest = Bucket()
        self._unsettled: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def rate_of(self, caller: str) -> Rate | None:
        """Return the rate of a caller."""
        return self.own.get(caller, self.rate) if self.own else self.rate

    def take(self, caller: str, cost: float, now: float) -> float:
        """Spend a cost and return 0; or spend nothing and return the time until there is enough."""
        wait_s = self.wait_s(caller, cost, now)
        if not wait_s:
            self.charge(caller, cost, now)
        return wait_s

    def wait_s(self, caller: str, cost: float, now: float) -> float:
        """Return the time until a caller has enough for a cost; 0 if it has."""
        bucket, rate = self._known(caller), self.rate_of(caller)
        return bucket.wait_s(rate, cost, now) if bucket is not None and rate is not None else 0.0

    def charge(self, caller: str, cost: float, now: float) -> None:
        """Spend a caller's cost, even if its bucket does not have enough."""
        rate = self.rate_of(caller)
        if rate is None:
            return
        bucket = self._known(caller)
        if bucket is None:
            bucket = self._buckets[caller] = Bucket()
        bucket.spend(rate, cost, now)
        if bucket is not self._rest:
            self._unsettled[caller] = bucket

    def left(self, caller: str, rate: Rate, now: float) -> tuple[int, float]:
        """Return how much a caller with this rate may spend now, and the time until its bucket is full."""
        bucket = self._known(caller)
        return (int(rate.burst), 0.0) if bucket is None else (bucket.left(rate, now), bucket.deficit_s(now))

    def _known(self, caller: str) -> Bucket | None:
        """Return a caller's bucket, or the shared one if there are too many; None if the caller can get a new one."""
        return self._buckets.get(caller) or (self._rest if len(self._buckets) >= MAX_BUCKETS else None)

    def unsettled(self) -> dict[str, Bucket]:
        """Return the buckets with charges to report, and forget that there are any."""
        unsettled, self._unsettled = self._unsettled, {}
        return unsettled

    def keep_unsettled(self, caller: str, bucket: Bucket) -> None:
        """Report a bucket again next time."""
        if bucket.unsettled_s:
            self._unsettled[caller] = bucket

    def forget_full(self, now: float) -> None:
        """Remove full buckets: an unknown caller's bucket counts as full."""
        full = [caller for caller, bucket in self._buckets.items() if not (bucket.unsettled_s or bucket.deficit_s(now))]
        for caller in full:
            del self._buckets[caller]


class SpendReport:
    """A report to Redis of what a caller spent at this replica."""

    __slots__ = ("_bucket", "_buckets", "_caller", "_charge_s", "_field")

    def __init__(self, buckets: Buckets, field: Literal["requests", "sent"], caller: str, bucket: Bucket) -> None:
        self._buckets, self._field, self._caller, self._bucket = buckets, field, caller, bucket
        self._charge_s, bucket.unsettled_s = bucket.unsettled_s, 0.0

    def call(self, keyspace: Keyspace) -> Call:
        """Return the call that reports it."""
        rate = self._buckets.rate_of(self._caller)
        longest_s = (0 if rate is None else rate.burst_s) + LONGEST_S
        key = getattr(keyspace.caller(self._caller), self._field)
        return Call(SPEND, (key,), (str(round(1e6 * self._charge_s)), str(round(1e6 * longest_s))))

    def replied(self, reply: Any, now: float) -> None:
        """Store the deficit of the bucket that all replicas share, which Redis returned."""
        self._bucket.settled(int(reply) / 1e6, now)

    def failed(self, now: float) -> None:
        """Keep the charge for the next report."""
        self._bucket.put_back(self._charge_s, now)
        self._buckets.keep_unsettled(self._caller, self._bucket)
