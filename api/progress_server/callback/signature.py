"""Signatures of the requests to a back end, in the format of Standard Webhooks (https://www.standardwebhooks.com/).

Receivers verify them with a library, which most languages have. Signing is done here: it takes one line of HMAC, of
bytes, where the library wants text.
"""

import hmac
import secrets
import time
from base64 import b64decode, b64encode

from progress_broker.settings import WEBHOOK_KEY_PREFIX


def new_message_id() -> str:
    """Return an id for a message. All attempts to send the message carry it."""
    return f"msg_{secrets.token_hex(12)}"


class Signer:
    """Signs messages with a secret, which is `whsec_` and the base64 of the key."""

    def __init__(self, secret: str) -> None:
        self._key = b64decode(secret.removeprefix(WEBHOOK_KEY_PREFIX))

    def headers(self, message_id: str, body: bytes, now: float | None = None) -> dict[str, str]:
        """Return the headers that sign a message, for an attempt to send it now."""
        timestamp = str(int(time.time() if now is None else now))
        mac = hmac.digest(self._key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
        signature = f"v1,{b64encode(mac).decode()}"
        return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
