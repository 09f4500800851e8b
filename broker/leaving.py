"""Leaving: a server that stops sends its clients away one by one, so that they do not come back all at once."""

from broker.subscription import Subscription

WHY = "draining"
"""What its client is told."""


class Leaving:
    """A subscription whose client is to be sent away: what the wheel drives meanwhile, beside the subscription."""

    __slots__ = ("_subscription", "bucket")

    def __init__(self, subscription: Subscription) -> None:
        self.bucket = 0
        self._subscription = subscription

    def tick(self, now: float) -> float | None:
        """Send the client away; it comes back, elsewhere, with its position."""
        self._subscription.close(WHY, reconnect=True)
        return None
