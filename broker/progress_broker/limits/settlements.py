"""Settlements: what a replica tells the others of one caller, and what it makes of the answer."""

from typing import Any, Literal, Protocol

from progress_broker.limits.gcra import LONGEST_S, Bucket, Buckets
from progress_broker.limits.stream_leases import StreamLeases
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import HOLD, SPEND, Call


class Settlement(Protocol):
    """A call that is to be made, and may fail."""

    def call(self, keyspace: Keyspace) -> Call:
        """Return what to say."""

    def replied(self, reply: Any, now: float) -> None:
        """Take the answer."""

    def failed(self, now: float) -> None:
        """Have it said again."""


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


class Word:
    """How many streams of a principal are here. With a limit it is asked whether there may be so many."""

    __slots__ = ("_leases", "_limit", "_said", "name")

    def __init__(self, leases: StreamLeases, name: str, limit: int | None = None) -> None:
        self._leases, self._limit, self.name = leases, limit, name
        self._said = str(leases.count(name)), str(leases.word())

    def call(self, keyspace: Keyspace) -> Call:
        """Return what to say."""
        leases, (count, number) = self._leases, self._said
        limit = "" if self._limit is None else str(self._limit)
        return Call(
            HOLD, (keyspace.caller(self.name).streams,), (leases.replica, count, limit, leases.lease_ms, number)
        )

    def replied(self, reply: Any, now: float) -> None:
        """Say it again when the lease is to be renewed; one that was refused changed nothing."""
        if reply[0]:
            self._leases.told(self.name, now)

    def failed(self, now: float) -> None:
        """Say it again soon."""
        self._leases.change(self.name)
