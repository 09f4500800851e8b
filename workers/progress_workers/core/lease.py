"""The worker's side of an operation's lease: when to send heartbeats."""

from collections.abc import Callable
from math import inf

_HEARTBEATS_PER_LEASE = 3
"""How many heartbeats are sent per lease, so that one may get lost and the next may be late."""
_KEPT = 4
"""How many heartbeats are sent per idle timeout: an operation with a worker must not expire, even without a lease."""
ASKED_AFTER_S = 10.0
"""How long after its last report an operation that sends no heartbeats sends one: is that report still stored?"""


class Lease:
    """When the next heartbeat is due. Times are monotonic, in seconds."""

    def __init__(self, lease_s: float | None, idle_timeout_s: float, now: float) -> None:
        self._heard_at = now
        self._look = self._released = False
        self._ask_at = inf
        self.wake: Callable[[], object] = lambda: None
        """Called when a heartbeat became due earlier."""
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
        return -inf if self._look else min(self._heard_at + self._every_s, self._ask_at)

    def heard(self, at: float) -> None:
        """Note that something was sent, which replaces a heartbeat."""
        self._heard_at = max(self._heard_at, at)
        if self._every_s > ASKED_AFTER_S and not self._released:
            asks, self._ask_at = self._ask_at < inf, at + ASKED_AFTER_S
            if not asks:
                self.wake()

    def check_now(self) -> None:
        """Request a heartbeat now: its reply says whether this process may still report the operation."""
        self._look = True

    def heartbeat_sent(self, now: float) -> None:
        """Note that a heartbeat was sent."""
        self._look, self._heard_at, self._ask_at = False, now, inf

    def release(self) -> None:
        """Note that nobody works on the operation here. The garbage collector calls this, so it takes no lock."""
        self._released = True
        self.lease_s, self._every_s, self._ask_at = None, inf, inf
