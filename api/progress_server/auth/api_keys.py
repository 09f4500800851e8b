"""API keys: credentials of workers. The file holds only their hashes, which let nobody in."""

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
    """A key in the file."""

    model_config = ConfigDict(extra="forbid")

    name: Label
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    grants: Annotated[list[GrantClaim], Field(max_length=MAX_GRANTS)]


class KeyFile(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid")

    keys: list[KeyEntry]


class ApiKeys:
    """The known keys."""

    def __init__(self, entries: list[KeyEntry]) -> None:
        self._principals = [
            (entry.sha256, Principal(entry.name, Grants(tuple(claim.grant() for claim in entry.grants))))
            for entry in entries
        ]

    def verify(self, key: str) -> Principal:
        """Return the principal of a key; raise `Unauthenticated`. It takes the same time for every key."""
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
    """Return what the file holds of a key: with 256 random bits there is nothing to guess, so no salt and no delay."""
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> ApiKeys:
    """Return the keys of a file, TOML or JSON by its name; raise `SetupError`."""
    try:
        text = expand_user(path).read_text("utf-8")
        value: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        return ApiKeys(KeyFile.model_validate(value).keys)
    except ValidationError as error:
        raise SetupError(f"the API keys in {path} are not valid: {invalid(error, value).detail}") from None
    except (OSError, ValueError) as error:
        raise SetupError(f"the API keys in {path} can't be read: {error}") from None
