"""Rate limits: how much a caller may spend, in buckets that are one number each: when they will be full again (GCRA).

This is made here because rate-limit libraries ask Redis before each request, or know one process only. Here a request
is decided from memory, and what was spent is settled with the other replicas afterwards
(`broker/progress_broker/limits/limiter.py`), so that a bucket knows of their requests too.
"""

from typing import Any, Literal, NamedTuple

from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import SPEND, Call

MAX_BUCKETS = 100_000
"""So many callers are told apart at a time; those beyond share one bucket."""

LONGEST_S = 30.0
"""Nobody is in debt for longer than this. A body is charged when it has come, so it may cost more than there was."""


_GRAIN_S = 1e-6  # what Redis counts in; below it sums of fractions differ


class Rate(NamedTuple):
    """How fast a bucket fills, and how much it holds."""

    per_s: float
    burst: float

    @property
    def burst_s(self) -> float:
        """How long an empty bucket takes to fill."""
        return self.burst / self.per_s


class Bucket:
    """One caller's bucket, full at first."""

    __slots__ = ("_full_at", "unsettled_s")

    def __init__(self) -> None:
        self._full_at = float("-inf")
        self.unsettled_s = 0.0
        """What was spent since the replicas last settled, as the time it takes to fill."""

    def lacks_s(self, now: float) -> float:
        """Return how long it takes until it is full."""
        return max(0.0, self._full_at - now)

    def wait_s(self, rate: Rate, cost: float, now: float) -> float:
        """Return how long it takes until there is enough in it for a cost; 0 when there is."""
        wait_s = self.lacks_s(now) + min(cost / rate.per_s, rate.burst_s) - rate.burst_s
        return wait_s if wait_s > _GRAIN_S else 0.0

    def left(self, rate: Rate, now: float) -> int:
        """Return what may be spent at once."""
        return max(0, int(rate.burst - self.lacks_s(now) * rate.per_s))

    def spend(self, rate: Rate, cost: float, now: float) -> None:
        """Take a cost out, also one that is not in it."""
        cost_s = cost / rate.per_s
        self._full_at = min(max(self._full_at, now) + cost_s, now + rate.burst_s + LONGEST_S)
        self.unsettled_s += cost_s

    def settled(self, lacks_s: float, now: float) -> None:
        """Take over what all replicas together have left in it; what was spent meanwhile is yet to be settled."""
        self._full_at = now + lacks_s + self.unsettled_s

    def put_back(self, charge_s: float, now: float) -> None:
        """Owe a charge still, as it could not be settled; but no more than time has not made good meanwhile."""
        self.unsettled_s = min(self.unsettled_s + charge_s, self.lacks_s(now))


class Buckets:
    """The buckets of all callers, of one rate."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._buckets: dict[str, Bucket] = {}
        self._rest = Bucket()
        self._unsettled: dict[str, Bucket] = {}

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, who: str, cost: float, now: float) -> float:
        """Spend a cost and return 0; or return how long it takes until there is enough."""
        wait_s = self.wait_s(who, cost, now)
        if not wait_s:
            self.charge(who, cost, now)
        return wait_s

    def wait_s(self, who: str, cost: float, now: float) -> float:
        """Return how long it takes until there is enough for a cost; 0 when there is."""
        bucket = self._known(who)
        return bucket.wait_s(self.rate, cost, now) if bucket is not None else 0.0

    def charge(self, who: str, cost: float, now: float) -> None:
        """Take a cost out of a caller's bucket, also one that is not in it."""
        bucket = self._known(who)
        if bucket is None:
            bucket = self._buckets[who] = Bucket()
        bucket.spend(self.rate, cost, now)
        if bucket is not self._rest:
            self._unsettled[who] = bucket

    def left(self, who: str, now: float) -> tuple[int, float]:
        """Return what a caller may spend at once, and how long its bucket takes until it is full."""
        bucket = self._known(who)
        return (int(self.rate.burst), 0.0) if bucket is None else (bucket.left(self.rate, now), bucket.lacks_s(now))

    def _known(self, who: str) -> Bucket | None:
        """Return a caller's bucket, or None if it has none, and may have one."""
        return self._buckets.get(who) or (self._rest if len(self._buckets) >= MAX_BUCKETS else None)

    def unsettled(self) -> dict[str, Bucket]:
        """Return those in which something was spent, each once."""
        unsettled, self._unsettled = self._unsettled, {}
        return unsettled

    def again(self, who: str, bucket: Bucket) -> None:
        """Yield one again next time."""
        if bucket.unsettled_s:
            self._unsettled[who] = bucket

    def forget_full(self, now: float) -> None:
        """Forget those that are full again, which is how the unknown are taken to be."""
        full = [who for who, bucket in self._buckets.items() if not (bucket.unsettled_s or bucket.lacks_s(now))]
        for who in full:
            del self._buckets[who]


class Charge:
    """What a caller spent here, taken out of the bucket that all replicas share."""

    __slots__ = ("_bucket", "_buckets", "_charge_s", "_field", "_who")

    def __init__(self, buckets: Buckets, field: Literal["requests", "sent"], who: str, bucket: Bucket) -> None:
        self._buckets, self._field, self._who, self._bucket = buckets, field, who, bucket
        self._charge_s, bucket.unsettled_s = bucket.unsettled_s, 0.0

    def call(self, keyspace: Keyspace) -> Call:
        """Return what to say."""
        longest_s = self._buckets.rate.burst_s + LONGEST_S
        key = getattr(keyspace.caller(self._who), self._field)
        return Call(SPEND, (key,), (str(round(1e6 * self._charge_s)), str(round(1e6 * longest_s))))

    def replied(self, reply: Any, now: float) -> None:
        """Take over what is left in the shared bucket."""
        self._bucket.settled(int(reply) / 1e6, now)

    def failed(self, now: float) -> None:
        """Owe it still."""
        self._bucket.put_back(self._charge_s, now)
        self._buckets.again(self._who, self._bucket)
