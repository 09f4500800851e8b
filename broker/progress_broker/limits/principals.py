"""Limits of one principal, which replace the defaults of the settings for it.

<prefix>:limits      hash: a principal's limits, as JSON
<prefix>:meta limits another random string with each change
"""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progress_broker.errors import InvalidInput
from progress_broker.limits.limiter import Limiter, OwnLimits
from progress_broker.limits.policy import rate_of_bytes, rate_of_requests
from progress_broker.model.operation import Label, Time
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.storage import versioned
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.keys import limits_key
from progress_broker.storage.scripts import SET_FIELDS

MOST = 10_000
"""How many principals may have limits of their own."""

_Limit = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class NewLimits(BaseModel):
    """Limits of a principal. What is left out or null is as for all; 0 is no limit, as in the settings."""

    model_config = ConfigDict(extra="forbid")

    requests_per_s: _Limit | None = None
    sent_bytes_per_s: _Limit | None = None
    streams: Annotated[int, Field(ge=0, strict=True)] | None = None

    def described(self) -> str:
        """Return one line, for the audit."""
        return ", ".join(f"{name} {value:g}" for name, value in NewLimits.model_dump(self).items() if value is not None)


class PrincipalLimits(BaseModel):
    """The limits of a principal, and who set them."""

    principal: Label
    requests_per_s: float | None = None
    sent_bytes_per_s: float | None = None
    streams: int | None = None
    by: str = ""
    at: Time


class AllLimits(BaseModel):
    """The principals with limits of their own."""

    limits: list[PrincipalLimits]


class LimitsCopy(versioned.Copy):
    """This replica's copy, which its limiter applies."""

    WORD: ClassVar[str] = "limits"

    def __init__(self, store: Store, limiter: Limiter) -> None:
        super().__init__()
        self._store, self._limiter = store, limiter

    async def read(self) -> None:
        """Read all limits, and apply them."""
        largest = self._store.settings.max_body_bytes
        own = {}
        for each in await list_limits(self._store):
            own[each.principal] = OwnLimits(
                has_requests=each.requests_per_s is not None,
                requests=rate_of_requests(each.requests_per_s or 0),
                has_sent=each.sent_bytes_per_s is not None,
                sent=rate_of_bytes(each.sent_bytes_per_s or 0, largest),
                streams=each.streams,
            )
        self._limiter.take_own(own)


async def list_limits(store: Store) -> list[PrincipalLimits]:
    """Return the principals with limits of their own, by name."""
    with storage_errors():
        found = await store.connections.commands.hgetall(limits_key(store.keyspace.prefix))
    limits = []
    for text in found.values():
        try:
            limits.append(PrincipalLimits.model_validate_json(text))
        except ValidationError as error:  # another program wrote it
            warn_once("limits of a principal can't be read", str(error))
    return sorted(limits, key=lambda each: each.principal)


async def set_limits(store: Store, principal: str, new: NewLimits, by: str) -> PrincipalLimits:
    """Set the limits of a principal. All replicas apply them within about a second.

    Raises `InvalidInput` if nothing is limited, or if too many principals have limits.
    """
    if new == NewLimits():
        raise InvalidInput("no limit is given: set requests_per_s, sent_bytes_per_s or streams")
    key, commands = limits_key(store.keyspace.prefix), store.connections.commands
    limits = PrincipalLimits(principal=principal, **new.model_dump(), by=by, at=await store.now())
    with storage_errors():
        known = await commands.hgetall(key)
        if principal.encode() not in known and len(known) >= MOST:
            raise InvalidInput(f"{MOST:,} principals have limits of their own, which is the maximum: remove some")
    await store.connections.scripts.run(Call(SET_FIELDS, (key,), (principal, limits.model_dump_json())))
    await versioned.changed(store.connections, store.keyspace, LimitsCopy.WORD)
    return limits


async def remove_limits(store: Store, principal: str) -> bool:
    """Have the limits of the settings apply to a principal again; return whether it had its own."""
    with storage_errors():
        removed = await store.connections.commands.hdel(limits_key(store.keyspace.prefix), principal)
    await versioned.changed(store.connections, store.keyspace, LimitsCopy.WORD)
    return bool(removed)
