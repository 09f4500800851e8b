"""Whether a node can be reached. One that can't costs its own lanes only, and no caller waits for it."""

import random
from collections.abc import Callable
from typing import Final

import redis.exceptions

DELAYS_S: Final = (0.1, 1.0)
"""The first and the longest delay between two checks of a node that is away."""


class NodeAway(redis.exceptions.ConnectionError):
    """The node that has the key can't be reached now, or nobody has the key. Other nodes may answer."""


class Health:
    """What is known about one node.

    After a failure somebody checks the node, once at a time, and never on behalf of a user's call: at once, because
    it may only have been an idle connection that was closed, and then again and again until the node answers.
    """

    def __init__(self, chance: Callable[[], float] | None = None) -> None:
        self.away: str | None = None
        """Why nothing is sent to the node; None if it is well, as far as known."""
        self._chance = chance or random.Random().random
        self._checking = False
        self._next_s = DELAYS_S[0]

    def doubt(self, reason: str, *, hangs: bool = False) -> bool:
        """Take the failure of a call. Return whether the caller must begin to check the node.

        A node that `hangs` is away at once: more callers would wait for it in vain.
        """
        if hangs:
            self.away = reason
        begins = not self._checking
        self._checking = True
        return begins

    def failed(self, reason: str) -> float:
        """Take the failure of a check. Return the delay until the next one, in seconds."""
        self.away = reason
        delay_s, self._next_s = self._next_s, min(DELAYS_S[1], self._next_s * 2)
        return delay_s * (1 - self._chance() / 2)

    def succeeded(self) -> None:
        """Take an answer to a check: the node is well, and nobody checks it any more."""
        self.away = None
        self._checking = False
        self._next_s = DELAYS_S[0]
