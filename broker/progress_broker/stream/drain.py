"""A server that stops sends its clients away one by one, so that they do not come back all at once."""

import random
from collections.abc import Iterable, Set
from typing import Any, Protocol

from progress_broker.runtime.timer_wheel import RESOLUTION_S, Wheel
from progress_broker.stream.subscription import Subscription

WHY = "draining"
"""What its client is told."""


class Watched(Protocol):
    """What has subscriptions: a channel."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Those that watch it now."""


class Connection(Protocol):
    """What carries several subscriptions to one client, which is sent away once and not for each of them."""

    @property
    def holder(self) -> Any:
        """For whom it was opened, to whoever may withdraw that; None for nobody in particular."""

    @property
    def subscriptions(self) -> Iterable[Subscription]:
        """Those that it carries now."""

    def close(self, reason: str, *, reconnect: bool) -> None:
        """End it, once, and what it carries. With `reconnect` the client is told why, and comes back."""


class Leaving:
    """One who is to be sent away: what the wheel drives meanwhile, beside whatever else it drives of them."""

    __slots__ = ("_client", "bucket")

    def __init__(self, client: Subscription | Connection) -> None:
        self.bucket = 0
        self._client = client

    def tick(self, now: float) -> float | None:
        """Send the client away; it comes back, elsewhere, with its position."""
        self._client.close(WHY, reconnect=True)
        return None


def send_away(channels: Iterable[Watched], connections: Set[Connection], wheel: Wheel, over_s: float) -> None:
    """Send every client away: at random moments within so many seconds, or at once."""
    carried = {subscription for connection in connections for subscription in connection.subscriptions}
    alone = [each for channel in channels for each in channel.subscriptions if each not in carried]
    spread_s = over_s - 2 * RESOLUTION_S  # by which the wheel may be late
    clients: list[Subscription | Connection] = [*connections, *alone]
    for client in clients:
        if spread_s <= 0:
            client.close(WHY, reconnect=True)
        else:
            wheel.add(Leaving(client), random.uniform(0, spread_s))
