"""Shutdown: the server disconnects its clients one after the other, so that they do not all reconnect at once."""

import random
from collections.abc import Iterable, Set
from typing import Any, Protocol

from progress_broker.runtime.timer_wheel import RESOLUTION_S, TimerWheel
from progress_broker.stream.subscription import Subscription

REASON = "draining"
"""The close reason that the client gets."""


class Watched(Protocol):
    """Something with subscriptions: a channel."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """The open subscriptions."""


class Connection(Protocol):
    """A connection that carries several subscriptions of one client. It is closed once, not once per subscription."""

    @property
    def holder(self) -> Any:
        """The owner of the connection, or None."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """The subscriptions that it carries now."""

    def close(self, reason: str, *, reconnect: bool) -> None:
        """Close the connection and its subscriptions. With `reconnect` the client gets the reason and reconnects."""


class DrainTimer:
    """The timer that disconnects one client during a shutdown."""

    __slots__ = ("_client", "bucket")

    def __init__(self, client: Subscription | Connection) -> None:
        self.bucket = 0
        self._client = client

    def tick(self, now: float) -> float | None:
        """Disconnect the client. It reconnects to another replica and resumes from its position."""
        self._client.close(REASON, reconnect=True)
        return None


def send_away(channels: Iterable[Watched], connections: Set[Connection], wheel: TimerWheel, over_s: float) -> None:
    """Disconnect every client, at random moments within `over_s` seconds, or at once if that is 0."""
    carried = {subscription for connection in connections for subscription in connection.subscriptions}
    alone = [one for channel in channels for one in channel.subscriptions if one not in carried]
    spread_s = over_s - 2 * RESOLUTION_S  # the wheel may be late by that much
    clients: list[Subscription | Connection] = [*connections, *alone]
    for client in clients:
        if spread_s <= 0:
            client.close(REASON, reconnect=True)
        else:
            wheel.add(DrainTimer(client), random.uniform(0, spread_s))
