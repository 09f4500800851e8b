"""Stream leases: each principal's number of streams at this replica, and when it was last reported to Redis.

A lease is not per stream: a replica reports a principal's number of streams, again and again. So a failed report is
corrected by the next one, and a hundred streams cost as much as one.
"""

import itertools
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from progress_broker.nodes.calls import Call
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import HOLD

RENEWALS = 2.5
"""How often a lease is renewed before it expires. One renewal may be lost."""


class _Count:
    """A principal's streams at this replica."""

    __slots__ = ("count", "renew_at")

    def __init__(self) -> None:
        self.count = 0
        self.renew_at = 0.0


class StreamLeases:
    """Which principals have streams open at this replica, as it reports them to Redis."""

    def __init__(self, lease_s: float) -> None:
        self.replica = token_hex(8)
        self.lease_ms = str(round(lease_s * 1000))
        self._period_s = lease_s / RENEWALS
        self._streams: dict[str, _Count] = {}  # in the order of their last renewal
        self._changed: dict[str, None] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._streams)

    def count(self, name: str) -> int:
        """Return how many streams a principal has here."""
        streams = self._streams.get(name)
        return streams.count if streams is not None else 0

    def add(self, name: str) -> int:
        """Count one more stream, and return the new number."""
        streams = self._streams.get(name)
        if streams is None:
            streams = self._streams[name] = _Count()
        streams.count += 1
        return streams.count

    def remove(self, name: str) -> None:
        """Count one stream less, and report it soon."""
        self._streams[name].count -= 1
        self._changed[name] = None

    def change(self, name: str) -> None:
        """Report a principal soon."""
        self._changed[name] = None

    def next_number(self) -> int:
        """Return the number of the next report. Redis ignores reports that arrive out of order."""
        return next(self._numbers)

    def reported(self, name: str, now: float) -> None:
        """Record that a principal was reported just now."""
        streams = self._streams.pop(name, None)
        if streams is not None and streams.count:
            streams.renew_at = now + self._period_s
            self._streams[name] = streams

    def due(self, now: float) -> Iterator[str]:
        """Yield the principals to report now, each once."""
        names = list(self._changed)
        self._changed.clear()
        for name, streams in self._streams.items():
            if streams.renew_at > now:
                break
            names.append(name)
        yield from dict.fromkeys(names)

    def all_due(self) -> None:
        """Report all principals: Redis may have lost the leases."""
        for streams in self._streams.values():
            streams.renew_at = 0.0


class LeaseReport:
    """A report of a principal's streams at this replica. With a limit, it asks Redis whether they are allowed."""

    __slots__ = ("_count_and_number", "_leases", "_limit", "name")

    def __init__(self, leases: StreamLeases, name: str, limit: int | None = None) -> None:
        self._leases, self._limit, self.name = leases, limit, name
        self._count_and_number = str(leases.count(name)), str(leases.next_number())

    def call(self, keyspace: Keyspace) -> Call:
        """Return the call that reports it."""
        leases, (count, number) = self._leases, self._count_and_number
        limit = () if self._limit is None else ("LIMIT", str(self._limit))
        keys = (keyspace.caller(self.name).streams,)
        return Call(HOLD, keys, (leases.replica, count, leases.lease_ms, number, *limit))

    def replied(self, reply: Any, now: float) -> None:
        """Schedule the next renewal of the lease, unless Redis rejected the streams and so changed nothing."""
        if reply[0]:
            self._leases.reported(self.name, now)

    def failed(self, now: float) -> None:
        """Report it again soon."""
        self._leases.change(self.name)
