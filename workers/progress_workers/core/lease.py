"""The worker's side of an operation's lease: when to say that it is alive."""

from math import inf

_BEATS = 3
"""In the time of a lease, so that one may be lost, and the next come late."""
_KEPT = 4
"""Beats in the time after which an operation expires as idle: it must not while somebody holds it, lease or none."""


class Lease:
    """Times are monotonic, in seconds."""

    def __init__(self, lease_s: float | None, idle_limit_s: float, now: float) -> None:
        self.lease_s = lease_s
        self._every_s = min(inf if lease_s is None else lease_s / _BEATS, idle_limit_s / _KEPT)
        self._heard_at = now
        self._look = False

    def due_at(self) -> float:
        """Return when the next beat has to be sent; infinity for never."""
        return -inf if self._look else self._heard_at + self._every_s

    def heard(self, at: float) -> None:
        """Note that something was sent, which is as good as a beat."""
        self._heard_at = max(self._heard_at, at)

    def look(self) -> None:
        """Have a beat sent now, because its answer tells whether the operation still is this process's."""
        self._look = True

    def beaten(self, now: float) -> None:
        """Note that a beat is sent."""
        self._look, self._heard_at = False, now

    def release(self) -> None:
        """Note that nobody works here any more. The garbage collector calls it, so it takes no lock."""
        self.lease_s, self._every_s = None, inf
