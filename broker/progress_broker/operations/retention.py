"""How long operations are kept. It is the same for all operations of a Redis, unless a creator asks for less.

The meta key has it. Each lane has a copy for the script that creates operations, because a script can read only
the keys of its lane. A change applies to existing operations, too.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from progress_broker.model.operation import MAX_RETENTION_S
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.commands import check_rejection
from progress_broker.operations.store import Store
from progress_broker.runtime.durations import shown
from progress_broker.settings import Settings
from progress_broker.storage.keys import meta_key
from progress_broker.storage.scripts import KEEP, RETAIN, SET_FIELDS

log = logging.getLogger(__name__)

_FIELDS = ("retention_ms", "idle_ms")
_AT_ONCE = 100  # operations per call: each takes Redis some 20 µs
_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Retention:
    """How long operations are kept, in seconds."""

    ended_s: float
    """After their end."""
    idle_s: float
    """Without an event or a heartbeat, if they have not ended."""

    @classmethod
    def default(cls) -> Self:
        """Return what holds until a server or an operator sets something else."""
        fields = Settings.model_fields
        return cls(fields["retention_s"].default, fields["idle_timeout_s"].default)


_Seconds = Annotated[float, Field(gt=0, le=MAX_RETENTION_S, strict=True)]


class NewRetention(BaseModel):
    """How long operations are to be kept, in seconds. What is left out or null stays as it is."""

    model_config = ConfigDict(extra="forbid")

    ended_s: _Seconds | None = None
    """After their end."""
    idle_s: _Seconds | None = None
    """Without an event or a heartbeat, if they have not ended."""


class RetentionState(BaseModel):
    """How long operations are kept, in seconds, and what came of a change."""

    ended_s: float
    idle_s: float
    looked: int = 0
    """How many operations there were."""
    changed: int = 0
    """How many of them expire at another time than before."""

    def described(self) -> str:
        """Return one line, for the audit."""
        return f"ended {shown(self.ended_s)}, idle {shown(self.idle_s)}"


class Keep(NamedTuple):
    """How long one operation is kept, in seconds, whatever the retention of all is."""

    ended_s: float
    """After its end."""
    idle_s: float | None = None
    """Without events, if it has not ended; None: as others."""


PINNED = Keep(MAX_RETENTION_S, MAX_RETENTION_S)
"""For as long as can be. Each key has an end."""


async def keep(store: Store, operation: str, new: Keep | None) -> None:
    """Say how long an operation is kept; None: as the retention, or its creator, says. Raises `NotFound` or `Gone`."""
    keys = store.keyspace.operation(operation)
    args = ["DEFAULT"] if new is None else ["KEEP", str(max(1, round(1000 * new.ended_s)))]
    if new is not None and new.idle_s is not None:
        args += ["IDLE", str(round(1000 * new.idle_s))]
    call = Call(KEEP, (keys.snapshot, keys.log, keys.lane.expiry), (operation, *args))
    check_rejection(await store.connections.scripts.run(call))


async def read(store: Store) -> Retention:
    """Return the retention of this Redis."""
    with storage_errors():
        values = await store.connections.commands.hmget(meta_key(store.settings.prefix), _FIELDS)
    default = Retention.default()
    ended_ms, idle_ms = (int(it) if it and it.isdigit() and len(it) < _DIGITS else None for it in values)
    return Retention(
        default.ended_s if ended_ms is None else ended_ms / 1000, default.idle_s if idle_ms is None else idle_ms / 1000
    )


async def change(store: Store, new: Retention, tell: Callable[[int], None] = lambda _: None) -> tuple[int, int]:
    """Set the retention. Return how many operations exist, and how many of them expire at another time than before.

    `tell` is called with the number of operations that were looked at so far. If it is interrupted, new operations have
    the new retention, and so have some existing ones: repeat it.
    """
    scripts = store.connections.scripts
    ended_ms, idle_ms = (str(max(1, round(1000 * given_s))) for given_s in (new.ended_s, new.idle_s))
    fields = (_FIELDS[0], ended_ms, _FIELDS[1], idle_ms)
    lanes = [store.keyspace.lane(number) for number in range(store.keyspace.lanes)]
    for lane in lanes:
        await scripts.run(Call(SET_FIELDS, (lane.policy,), fields))
    looked = changed = 0
    for lane in lanes:
        cursor = 0
        while True:
            with storage_errors():
                cursor, found = await store.connections.commands.zscan(lane.expiry, cursor, count=_AT_ONCE)
            members = [member for member, _ in found]
            for at in range(0, len(members), _AT_ONCE):
                some = members[at : at + _AT_ONCE]
                changed += int(await scripts.run(Call(RETAIN, (lane.expiry,), (lane.operations, *some))))
                looked += len(some)
                tell(looked)
            if cursor == 0:
                break
    # Last, so that a server that starts after an interruption repeats it.
    await scripts.run(Call(SET_FIELDS, (meta_key(store.settings.prefix),), fields))
    return looked, changed


async def read_state(store: Store) -> RetentionState:
    """Return the retention of this Redis, for operators. Raises `StorageUnavailable`."""
    now = await read(store)
    return RetentionState(ended_s=now.ended_s, idle_s=now.idle_s)


async def set_retention(
    store: Store, new: NewRetention, tell: Callable[[int], None] = lambda _: None
) -> RetentionState:
    """Change what `new` names, as `change` does, and return what holds then."""
    now = await read(store)
    wanted = Retention(new.ended_s or now.ended_s, new.idle_s or now.idle_s)
    looked, changed = await change(store, wanted, tell)
    return RetentionState(ended_s=wanted.ended_s, idle_s=wanted.idle_s, looked=looked, changed=changed)


async def apply_settings(store: Store) -> None:
    """Set the retention that this process' settings name, if it is another one than that of this Redis."""
    named = store.settings.model_fields_set
    now = new = await read(store)
    if "retention_s" in named:
        new = replace(new, ended_s=store.settings.retention_s)
    if "idle_timeout_s" in named:
        new = replace(new, idle_s=store.settings.idle_timeout_s)
    if new == now:
        return
    log.info("setting the retention to %s, as the settings say; it was %s", _shown(new), _shown(now))
    _, changed = await change(store, new)
    log.info("the retention is %s now: %d existing operations expire at another time", _shown(new), changed)


def _shown(retention: Retention) -> str:
    return f"{retention.ended_s:g} s after the end and {retention.idle_s:g} s without events"
