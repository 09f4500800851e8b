"""API keys: credentials of workers. The key file holds only hashes, from which no key can be recovered."""

import hashlib
import hmac
import json
import secrets
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.errors import SetupError, Unauthenticated
from progress_broker.model.grants import Grants
from progress_broker.model.operation import Label
from progress_broker.model.validation import invalid
from progress_broker.settings import expand_user
from progress_server.auth.claims import MAX_GRANTS, GrantClaim
from progress_server.auth.principal import Principal

PREFIX = "pbk_"
"""What every key begins with, so that secret scanners find a key that was published by mistake."""


class KeyEntry(BaseModel):
    """One entry of the key file: the name of its principal, the hash of the key, and what the principal may do."""

    model_config = ConfigDict(extra="forbid")

    name: Label
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    grants: Annotated[list[GrantClaim], Field(max_length=MAX_GRANTS)]


class KeyFile(BaseModel):
    """The content of the key file."""

    model_config = ConfigDict(extra="forbid")

    keys: list[KeyEntry]


class ApiKeys:
    """The keys that this server accepts."""

    def __init__(self, entries: list[KeyEntry]) -> None:
        self._principals = [
            (entry.sha256, Principal(entry.name, Grants(tuple(claim.grant() for claim in entry.grants))))
            for entry in entries
        ]

    def verify(self, key: str) -> Principal:
        """Return the principal of a key; raise `Unauthenticated` for an unknown key. Each key takes the same time."""
        digest, found = hash_key(key), None
        for known, principal in self._principals:
            if hmac.compare_digest(digest, known):
                found = principal
        if found is None:
            raise Unauthenticated("unknown API key")
        return found


def new_key() -> str:
    """Return a new random key."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """Return the hash of a key. A key has 256 random bits and can't be guessed, so it needs no salt."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> ApiKeys:
    """Return the keys of a file: JSON if its name ends in `.json`, else TOML. Raise `SetupError` if it is not valid."""
    try:
        text = expand_user(path).read_text("utf-8")
        value: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return ApiKeys(KeyFile.model_validate(value).keys)
    except ValidationError as error:
        raise SetupError(
            f"the key file {path} of PROGRESS_API_KEYS is not valid: {invalid(error, value).detail}"
        ) from None
    except (OSError, ValueError) as error:
        raise SetupError(f"can't read the key file {path} of PROGRESS_API_KEYS: {error}") from None
