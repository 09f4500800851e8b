"""The headers `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10)."""

import math

from progress_broker.limits.gcra import Buckets, Rate

Headers = list[tuple[bytes, bytes]]


def policy(name: str, rate: Rate, unit: str = "") -> str:
    """Return the policy of a rate: the quota `q`, and the window `w` in seconds in which it refills."""
    return f'"{name}";q={int(rate.burst)};w={math.ceil(rate.burst_s)}{unit}'


REQUESTS, SENT = "requests", "sent-bytes"
BYTES = ';qu="content-bytes"'


class RateLimitHeaders:
    """Builds the rate limit headers from token buckets."""

    def __init__(self, requests: Buckets | None, sent: Buckets | None) -> None:
        limits = [(REQUESTS, requests, ""), (SENT, sent, BYTES)]
        self._limits = [(name, buckets) for name, buckets, _ in limits if buckets is not None]
        policies = [policy(name, buckets.rate, unit) for name, buckets, unit in limits if buckets is not None]
        self._policy = (b"ratelimit-policy", ", ".join(policies).encode())

    def headers(self, caller: str, now: float) -> Headers:
        """Return the current headers for a caller."""
        items = []
        for name, buckets in self._limits:
            left, deficit_s = buckets.left(caller, now)
            items.append(f'"{name}";r={left};t={math.ceil(deficit_s)}')
        return [self._policy, (b"ratelimit", ", ".join(items).encode())] if items else []


def stream_headers(limit: int) -> Headers:
    """Return the headers for a principal that has reached its limit of open streams."""
    policy = f'"streams";q={limit};qu="concurrent-requests"'
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", b'"streams";r=0')]
