"""Sealed cursors: what callers carry for us, and can neither read nor change.

These are not JSON Web Tokens, as a cursor must be encrypted and not only signed: it would tell of operations that the
caller may not read. Fernet does both, and needs no claims, as a cursor says neither who calls nor what they may do.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from cryptography.fernet import Fernet, InvalidToken

from progress_broker.errors import InvalidInput


class CursorCipher:
    """Encrypts and decrypts cursors, on any replica that has the same secret."""

    def __init__(self, secret: bytes) -> None:
        self._fernet = Fernet(urlsafe_b64encode(hmac.digest(secret, b"progress-broker seal 1", hashlib.sha256)))

    def encrypt(self, cursor: str | None) -> str | None:
        """Return a cursor, encrypted."""
        return None if cursor is None else self._fernet.encrypt(cursor.encode()).decode()

    def decrypt(self, cursor: str | None) -> str | None:
        """Return a cursor, decrypted; raise `InvalidInput` for one that this server did not give out."""
        try:
            return None if cursor is None else self._fernet.decrypt(cursor).decode()
        except InvalidToken:
            words = "invalid cursor: send `next_cursor` of the page before, unchanged"
            raise InvalidInput(words, field="cursor") from None
