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
            rate_of_requests(requests),
            rate_of_bytes(sent, settings.max_body_bytes),
        )


def rate_of_requests(per_s: float) -> Rate | None:
    """Return the rate of a number of requests per second; None for 0, which is no limit."""
    return Rate(per_s, per_s * BURST_S) if per_s else None


def rate_of_bytes(per_s: float, largest_body: int) -> Rate | None:
    """Return the rate of a number of bytes per second; None for 0. Its burst allows one body of the maximum size."""
    return Rate(per_s, max(per_s * BURST_S, largest_body)) if per_s else None
