"""The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10)."""

import math
from functools import lru_cache

from progress_broker.limits.gcra import Rate
from progress_broker.limits.limiter import Limiter

Headers = list[tuple[bytes, bytes]]


def policy(name: str, rate: Rate, unit: str = "") -> str:
    """Return the policy of a rate: the quota `q`, and the window `w` in seconds in which it refills."""
    return f'"{name}";q={int(rate.burst)};w={math.ceil(rate.burst_s)}{unit}'


REQUESTS, SENT = "requests", "sent-bytes"
BYTES = ';qu="content-bytes"'


class RateLimitHeaders:
    """Builds the rate limit headers from a limiter's token buckets."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def headers(self, caller: str, now: float) -> Headers:
        """Return the current headers for a caller."""
        rates, items = [], []
        for name, buckets, unit in ((REQUESTS, self._limiter.requests, ""), (SENT, self._limiter.sent, BYTES)):
            rate = None if buckets is None else buckets.rate_of(caller)
            if buckets is not None and rate is not None:
                left, deficit_s = buckets.left(caller, rate, now)
                items.append(f'"{name}";r={left};t={math.ceil(deficit_s)}')
                rates.append((name, rate, unit))
        if not items:
            return []
        return [(b"ratelimit-policy", _policies(tuple(rates))), (b"ratelimit", ", ".join(items).encode())]


@lru_cache(maxsize=1_000)
def _policies(rates: tuple[tuple[str, Rate, str], ...]) -> bytes:
    return ", ".join(policy(*each) for each in rates).encode()


def stream_headers(limit: int) -> Headers:
    """Return the headers for a principal that has reached its limit of open streams."""
    policy = f'"streams";q={limit};qu="concurrent-requests"'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", b'"streams";r=0')]
