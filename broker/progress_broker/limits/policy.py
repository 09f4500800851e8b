"""The limits a replica keeps, as the settings have them."""

from typing import NamedTuple, Self

from progress_broker.limits.gcra import Rate
from progress_broker.settings import Settings

BURST_S = 2.0
"""So many seconds' worth may be spent at once, after a calm."""

REQUESTS_PER_S, SENT_BYTES_PER_S = 200, 2 * 1024 * 1024
"""What holds with authentication unless something else is set. Without it all who may come are one's own."""


class Limits(NamedTuple):
    """How much is allowed; None and 0 are no limit."""

    streams: int
    streams_per_address: int
    streams_per_principal: int
    requests: Rate | None
    sent: Rate | None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return those of the settings."""
        known = settings.auth != "none"
        requests = settings.requests_per_s if settings.requests_per_s is not None else known * REQUESTS_PER_S
        sent = settings.sent_bytes_per_s if settings.sent_bytes_per_s is not None else known * SENT_BYTES_PER_S
        return cls(
            settings.max_streams,
            settings.max_streams_per_address,
            settings.max_streams_per_principal,
            Rate(requests, requests * BURST_S) if requests else None,
            # One body that is as large as it may be has to be possible.
            Rate(sent, max(sent * BURST_S, settings.max_body_bytes)) if sent else None,
        )
