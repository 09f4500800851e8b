"""Encrypted cursors of listings: callers send them back, and can neither read nor change them.

They are not JSON Web Tokens: a cursor must be encrypted and not only signed, because it may contain the id of an
operation that the caller may not read. Fernet does both.
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
        """Return the encrypted cursor; None stays None."""
        return None if cursor is None else self._fernet.encrypt(cursor.encode()).decode()

    def decrypt(self, cursor: str | None) -> str | None:
        """Return the decrypted cursor; raise `InvalidInput` for a cursor that was not encrypted with this secret."""
        try:
            return None if cursor is None else self._fernet.decrypt(cursor).decode()
        except InvalidToken:
            words = "the cursor is not valid: send the `next_cursor` of the previous page, unchanged"
            raise InvalidInput(words, field="cursor") from None
