"""Whether a write has reached a replica, so that it outlives the master. No I/O happens here."""

import logging
from typing import Any

import redis.exceptions

from progress_broker.routing.address import RedisAddress
from progress_broker.settings import Settings

logger = logging.getLogger(__name__)

MOST_MS = 250
"""How long a creation or an end waits at most until replicas have it, in milliseconds: starts wait a second in all."""
KNOWN_S = 10.0
"""How long it is known whether a server has replicas."""
MISSED_S = 600.0
"""How long replicas that were there are missed, so that they do not have what is written: a network that fails cuts a
master off from them before it dies. After that, they are not expected back."""
SLOW_S = 1.0
"""How long after replicas did not confirm a write in time others hardly wait for them: calls must not queue up."""
_SLOW_MS = 10

ROLE = "ROLE"
"""The command whose reply says which replicas a master has."""
Wait = tuple[str, int, int]


class Replicas:
    """The replicas of one server. Times are monotonic, in seconds.

    `wanted` is how many must confirm a write; None: one, if there is any; 0: none.
    """

    def __init__(self, wanted: int | None, most_ms: int) -> None:
        self._wanted, self._most_ms = wanted, most_ms
        self._known_until = self._slow_until = self._expected_until = 0.0

    def ask(self, now: float) -> bool:
        """Return whether to send `ROLE` before it is known whether there is anything to wait for."""
        return self._wanted is None and now >= self._known_until

    def learn(self, role: Any, now: float) -> None:
        """Note the reply to `ROLE`. If it names no replica, or is an error, those that were there before are missed."""
        self._give_up_if_rejected(ROLE, role)
        self._known_until = now + KNOWN_S
        if isinstance(role, list | tuple) and len(role) == 3 and role[0] == b"master" and role[2]:
            self._expected_until = now + MISSED_S
        else:
            self._slow_until = self._known_until

    def forget(self) -> None:
        """Expect no replicas until they are known again: another server may be the master, as a connection was lost."""
        self._known_until = self._slow_until = self._expected_until = 0.0

    def wait(self, most_ms: int, now: float) -> Wait | None:
        """Return the command to send after writes, by the same connection; None: there is nobody to wait for."""
        number = self._number(now)
        if number == 0:
            return None
        return "WAIT", number, min(most_ms, self._most_ms, _SLOW_MS if now < self._slow_until else most_ms)

    def confirmed(self, reply: Any, now: float) -> bool | None:
        """Return whether enough replicas have what was written before `wait`, by its reply; None: it is not known."""
        if not isinstance(reply, int):
            # Other errors come with a failover: then no replica is known to have it.
            return None if self._give_up_if_rejected("WAIT", reply) else False
        number = self._number(now)
        if number == 0:  # forgotten meanwhile
            return None
        if reply >= number:
            return True
        self._slow_until, self._known_until = now + SLOW_S, now
        return False

    def _give_up_if_rejected(self, command: str, reply: Any) -> bool:
        """Wait for nobody any more if a command is not permitted, or not known, as on some managed services."""
        unknown = isinstance(reply, redis.exceptions.ResponseError) and "unknown command" in str(reply)
        if not (unknown or isinstance(reply, redis.exceptions.NoPermissionError)):
            return False
        logger.warning("Redis rejects %s (%s): so nothing waits until replicas have creations and ends", command, reply)
        self._wanted = 0
        return True

    def _number(self, now: float) -> int:
        return int(now < self._expected_until) if self._wanted is None else self._wanted


def replicas_of(address: RedisAddress, settings: Settings) -> Replicas:
    """Return the replicas of a server at an address. They are waited for less long than any reply is."""
    return Replicas(address.wait_replicas, min(address.wait_ms, round(500 * settings.redis_timeout_s)))
