"""The limits that a replica applies, from the settings."""

from typing import NamedTuple, Self

from progress_broker.limits.gcra import Rate
from progress_broker.settings import Settings

BURST_S = 2.0
"""A caller that was idle may spend this many seconds' worth at once."""

REQUESTS_PER_S, SENT_BYTES_PER_S = 200, 2 * 1024 * 1024
"""The defaults with authentication. Without authentication the defaults are no limit: all callers are trusted."""


class Limits(NamedTuple):
    """The limits; None and 0 mean no limit."""

    streams: int
    streams_per_address: int
    streams_per_principal: int
    requests: Rate | None
    sent: Rate | None

    @classmethod
    def of(cls, settings: Settings, *, authenticated: bool = False) -> Self:
        """Return the limits from the settings. Callers may be `authenticated` by other means than the settings name."""
        known = authenticated or settings.auth != "none"
        requests = settings.requests_per_s if settings.requests_per_s is not None else known * REQUESTS_PER_S
        sent = settings.sent_bytes_per_s if settings.sent_bytes_per_s is not None else known * SENT_BYTES_PER_S
        return cls(
            settings.max_streams,
            settings.max_streams_per_address,
            settings.max_streams_per_principal,
            Rate(requests, requests * BURST_S) if requests else None,
            # The burst must allow one body of the maximum size.
            Rate(sent, max(sent * BURST_S, settings.max_body_bytes)) if sent else None,
        )
