"""A seal: what a caller carries for us, and neither reads nor changes."""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken

from progress_broker.errors import Invalid


class Seal:
    """Closes and opens cursors, on any replica that has the same secret."""

    def __init__(self, secret: bytes) -> None:
        self._fernet = Fernet(urlsafe_b64encode(hmac.digest(secret, b"progress-broker seal 1", hashlib.sha256)))

    def close(self, cursor: str | None) -> str | None:
        """Return a cursor sealed."""
        return None if cursor is None else self._fernet.encrypt(cursor.encode()).decode()

    def open(self, cursor: str | None) -> str | None:
        """Return what a seal holds; raise `Invalid` for what is none of ours."""
        try:
            return None if cursor is None else self._fernet.decrypt(cursor).decode()
        except InvalidToken:
            words = "this cursor is none of ours: take it from `next_cursor`, unchanged"
            raise Invalid(words, field="cursor") from None
