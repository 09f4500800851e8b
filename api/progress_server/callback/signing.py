"""Signatures: how a back end knows that a question is ours, and new."""

import hmac
import time


def signed(secret: bytes, body: bytes, now: float | None = None) -> dict[str, str]:
    """Return the headers that sign a body: HMAC-SHA256 over the time, a dot and the body."""
    timestamp = str(int(time.time() if now is None else now))
    mac = hmac.digest(secret, timestamp.encode() + b"." + body, "sha256")
    return {"Progress-Timestamp": timestamp, "Progress-Signature": f"v1={mac.hex()}"}
