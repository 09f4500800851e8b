"""Stream leases: how many streams each principal has at this replica, and what of that the others have been told.

There is no lease for each stream: a replica tells its number, again and again. So what went wrong once is mended the
next time, and a hundred streams cost what one does.
"""

import itertools
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from progress_broker.storage.keys import Keyspace
from progress_broker.storage.scripts import HOLD, Call

RENEWALS = 2.5
"""So often a lease is renewed while it holds: one renewal may be lost."""


class Held:
    """A principal's streams at this replica."""

    __slots__ = ("count", "renew_at")

    def __init__(self) -> None:
        self.count = 0
        self.renew_at = 0.0


class StreamLeases:
    """The principals that have streams here."""

    def __init__(self, lease_s: float) -> None:
        self.replica = token_hex(8)
        self.lease_ms = str(round(lease_s * 1000))
        self._period_s = lease_s / RENEWALS
        self._held: dict[str, Held] = {}  # the one longest not renewed first
        self._changed: dict[str, None] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._held)

    def count(self, name: str) -> int:
        """Return how many streams a principal has here."""
        held = self._held.get(name)
        return held.count if held is not None else 0

    def add(self, name: str) -> int:
        """Count one more, and return how many that makes."""
        held = self._held.get(name)
        if held is None:
            held = self._held[name] = Held()
        held.count += 1
        return held.count

    def remove(self, name: str) -> None:
        """Count one less, and have the others told soon."""
        self._held[name].count -= 1
        self._changed[name] = None

    def change(self, name: str) -> None:
        """Have the others told of a principal soon."""
        self._changed[name] = None

    def word(self) -> int:
        """Return the number of what is told next."""
        return next(self._numbers)

    def told(self, name: str, now: float) -> None:
        """Note that the others were told of a principal just now."""
        held = self._held.pop(name, None)
        if held is not None and held.count:
            held.renew_at = now + self._period_s
            self._held[name] = held

    def due(self, now: float) -> Iterator[str]:
        """Yield of whom the others are to be told now, each once."""
        names = list(self._changed)
        self._changed.clear()
        for name, held in self._held.items():
            if held.renew_at > now:
                break
            names.append(name)
        yield from dict.fromkeys(names)

    def all_due(self) -> None:
        """Have the others told of all: they may have forgotten."""
        for held in self._held.values():
            held.renew_at = 0.0


class Word:
    """How many streams of a principal are here. With a limit it is asked whether there may be so many."""

    __slots__ = ("_leases", "_limit", "_said", "name")

    def __init__(self, leases: StreamLeases, name: str, limit: int | None = None) -> None:
        self._leases, self._limit, self.name = leases, limit, name
        self._said = str(leases.count(name)), str(leases.word())

    def call(self, keyspace: Keyspace) -> Call:
        """Return what to say."""
        leases, (count, number) = self._leases, self._said
        limit = () if self._limit is None else ("LIMIT", str(self._limit))
        keys = (keyspace.caller(self.name).streams,)
        return Call(HOLD, keys, (leases.replica, count, leases.lease_ms, number, *limit))

    def replied(self, reply: Any, now: float) -> None:
        """Say it again when the lease is to be renewed; one that was refused changed nothing."""
        if reply[0]:
            self._leases.told(self.name, now)

    def failed(self, now: float) -> None:
        """Say it again soon."""
        self._leases.change(self.name)
