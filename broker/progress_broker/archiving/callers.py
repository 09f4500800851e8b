"""What the replicas of a Redis share about callers: the secret that signs tickets, revocations, and limits."""

import time
from typing import Literal, NamedTuple

import orjson
from pydantic import BaseModel, ValidationError

from progress_broker.access.deny_list import Claim, list_revoked, revoke_claim
from progress_broker.access.shared_secret import FIELD
from progress_broker.limits.principals import NewLimits, PrincipalLimits, list_limits, set_limits
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.storage.keys import secrets_key
from progress_broker.transfer.files.reader import DamagedExport

_PAGE = 1_000


class Revoked(BaseModel):
    """A principal (`sub`) or a token (`jti`) that is revoked."""

    claim: Claim
    value: str
    until: float
    """In seconds since 1970."""


class Callers(BaseModel):
    """All of it, as a backup has it."""

    format: Literal["progress-backup-callers"] = "progress-backup-callers"
    version: Literal[1] = 1
    ticket_secret: str | None = None
    """None if no ticket was ever asked for, or the secret is one of the settings."""
    revoked: list[Revoked] = []
    limits: list[PrincipalLimits] = []


class Stored(NamedTuple):
    """How much was restored."""

    secrets: int
    revocations: int
    limits: int

    def __str__(self) -> str:
        return f"secrets {self.secrets}, revocations {self.revocations}, limits {self.limits}"


async def read_callers(store: Store) -> bytes:
    """Return what a Redis has about callers, as JSON."""
    with storage_errors():
        secret = await store.connections.commands.hget(secrets_key(store.keyspace.prefix), FIELD)
    revoked: list[Revoked] = []
    at: int | None = 0
    while at is not None:
        page, at = await list_revoked(store, at, _PAGE)
        revoked += [Revoked(**each._asdict()) for each in page]
    callers = Callers(
        ticket_secret=None if secret is None else secret.decode(), revoked=revoked, limits=await list_limits(store)
    )
    return orjson.dumps(callers.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"


async def restore_callers(store: Store, data: bytes) -> Stored:
    """Take over what a backup has about callers; raise `DamagedExport`.

    The secret and limits replace those that are there. A revocation that is there and lasts longer stays.
    """
    try:
        callers = Callers.model_validate_json(data)
    except ValidationError as error:
        raise DamagedExport(f"what the backup has about callers is not valid: {error.errors()[0]['msg']}") from None
    if callers.ticket_secret is not None:
        with storage_errors():
            key = secrets_key(store.keyspace.prefix)
            await store.connections.commands.hset(key, FIELD, callers.ticket_secret)
    lasting = [each for each in callers.revoked if each.until > time.time()]
    for each in lasting:
        await revoke_claim(store, each.claim, each.value, each.until - time.time())
    for limits in callers.limits:
        new = NewLimits(**limits.model_dump(include=set(NewLimits.model_fields)))
        await set_limits(store, limits.principal, new, limits.by)
    return Stored(int(callers.ticket_secret is not None), len(lasting), len(callers.limits))
