"""The worker's side of an operation's lease: when to send heartbeats."""

from math import inf

_HEARTBEATS_PER_LEASE = 3
"""How many heartbeats are sent per lease, so that one may get lost and the next may be late."""
_KEPT = 4
"""How many heartbeats are sent per idle timeout: an operation with a worker must not expire, even without a lease."""


class Lease:
    """When the next heartbeat is due. Times are monotonic, in seconds."""

    def __init__(self, lease_s: float | None, idle_timeout_s: float, now: float) -> None:
        self._heard_at = now
        self._look = self._released = False
        self._idle_timeout_s = idle_timeout_s
        self.begin(lease_s, idle_timeout_s)

    def begin(self, lease_s: float | None, idle_timeout_s: float | None) -> None:
        """Note how long the worker may be silent. An operation without a lease expires after the idle timeout."""
        if self._released:
            return
        idle_s = idle_timeout_s or self._idle_timeout_s
        self.lease_s = lease_s
        self._every_s = min(inf if lease_s is None else lease_s / _HEARTBEATS_PER_LEASE, idle_s / _KEPT)

    def due_at(self) -> float:
        """Return when the next heartbeat must be sent; infinity for never."""
        return -inf if self._look else self._heard_at + self._every_s

    def heard(self, at: float) -> None:
        """Note that something was sent, which replaces a heartbeat."""
        self._heard_at = max(self._heard_at, at)

    def check_now(self) -> None:
        """Request a heartbeat now: its reply says whether this process may still report the operation."""
        self._look = True

    def heartbeat_sent(self, now: float) -> None:
        """Note that a heartbeat was sent."""
        self._look, self._heard_at = False, now

    def release(self) -> None:
        """Note that nobody works on the operation here. The garbage collector calls this, so it takes no lock."""
        self._released = True
        self.lease_s, self._every_s = None, inf
