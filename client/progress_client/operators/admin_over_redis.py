"""What operators ask of the replicas, in Redis itself. What they change is in the audit, too."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from progress_broker.access.audit import AuditEntry, AuditFilter, AuditPage, read_audit, record_once
from progress_broker.access.deny_list import Claim, RevokedClaim, list_revoked, restore_claim, revoke_claim
from progress_broker.errors import NotFound, SetupError
from progress_broker.limits.principals import NewLimits, PrincipalLimits, list_limits, remove_limits, set_limits
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations import retention
from progress_broker.operations.retention import NewRetention, RetentionState
from progress_broker.operations.store import Store
from progress_broker.replicas import changes, figures, streams, usage
from progress_broker.replicas.changes import Drained, Reloads
from progress_broker.replicas.figures import Stats, Workers
from progress_broker.replicas.presence import Replicas, list_replicas
from progress_broker.replicas.streams import Kicked, StreamFilter, StreamsPage
from progress_broker.replicas.usage import Storage

_PAGE = 1_000
"""How many revocations are read at a time."""


class AdminOverRedis:
    """Asks through Redis. `by` is who asks, for the audit."""

    def __init__(self, store: Store, by: str) -> None:
        self._store, self._by = store, by

    async def replicas(self) -> Replicas:
        """Return the replicas that are present."""
        return await list_replicas(self._store)

    async def stats(self) -> Stats:
        """Return figures of the whole installation."""
        return await figures.read_stats(self._store)

    async def workers(self) -> Workers:
        """Return the workers of operations that have not ended."""
        return await figures.read_workers(self._store)

    async def storage(self, sample: int) -> Storage:
        """Return what takes room, from a sample of operations."""
        return await usage.read_storage(self._store, sample)

    async def all_storage(self, rps: float, tell: Callable[[int], None]) -> Storage:
        """Return what all operations take."""
        return await usage.read_all_storage(self._store, rps=rps, tell=tell)

    async def streams(self, wanted: StreamFilter, *, limit: int, cursor: str | None) -> StreamsPage:
        """Return a page of the open streams of all replicas."""
        return await streams.list_streams(self._store, wanted, limit=limit, cursor=cursor)

    async def kick(self, connection: str, *, for_good: bool) -> Kicked:
        """End a stream."""
        kicked = await streams.kick(self._store, connection, for_good=for_good)
        await self._record("kick", connection, kicked.described())
        return kicked

    async def reload(self) -> Reloads:
        """Have all replicas read their settings again."""
        report = await changes.reload_all(self._store)
        await self._record("reload", "", report.described())
        return report

    async def drain(self, replica: str, *, force: bool) -> Drained:
        """Have a replica send all its clients to the others."""
        drained = await changes.drain(self._store, replica, force=force)
        await self._record("drain", replica, "by force" if force else "")
        return drained

    async def limits(self) -> list[PrincipalLimits]:
        """Return the principals with limits of their own."""
        return await list_limits(self._store)

    async def set_limits(self, principal: str, new: NewLimits) -> PrincipalLimits:
        """Set the limits of a principal."""
        limits = await set_limits(self._store, principal, new, self._by)
        await self._record("limit", principal, new.described())
        return limits

    async def remove_limits(self, principal: str) -> None:
        """Have the limits of the settings apply to a principal again; raise `NotFound` if it had none."""
        if not await remove_limits(self._store, principal):
            raise NotFound(f"{principal!r} has no limits of its own")
        await self._record("unlimit", principal)

    async def retention(self) -> RetentionState:
        """Return how long operations are kept."""
        return await retention.read_state(self._store)

    async def set_retention(self, new: NewRetention, tell: Callable[[int], None]) -> RetentionState:
        """Set how long operations are kept, and return what came of it."""
        state = await retention.set_retention(self._store, new, tell)
        await self._record("retention", "", state.described())
        return state

    async def revoke(self, claim: Claim, value: str, for_s: float) -> None:
        """Revoke a principal or a token."""
        await revoke_claim(self._store, claim, value, for_s)
        await self._record("revoke", f"{claim}:{value}", f"for {for_s:g} s")

    async def restore(self, claim: Claim, value: str) -> None:
        """Withdraw a revocation; raise `NotFound` if there is none."""
        if not await restore_claim(self._store, claim, value):
            raise NotFound(f"{claim} {value!r} is not revoked: `progress-broker auth list` shows what is")
        await self._record("restore", f"{claim}:{value}")

    async def revoked(self) -> AsyncGenerator[RevokedClaim]:
        """Yield what is revoked."""
        start: int | None = 0
        while start is not None:
            page, start = await list_revoked(self._store, start, _PAGE)
            for claim in page:
                yield claim

    async def audit(self, wanted: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
        """Return a page of who changed what, newest first."""
        return await read_audit(self._store, wanted, limit=limit, cursor=cursor)

    async def info(self) -> list[dict[str, Any]]:
        """Return what each server of Redis tells of itself."""
        with storage_errors():
            return [await master.info() for master in await self._store.connections.masters()]

    async def metrics(self) -> str:
        """Raise `SetupError`: Redis has no metrics."""
        raise SetupError("a server has metrics, and Redis has none: set PROGRESS_URL, or use --url")

    async def monitor(self, query: Mapping[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """Raise `SetupError`: in Redis there is no log."""
        raise SetupError("a server has the log, and Redis has none: set PROGRESS_URL, or use --url")
        yield {}

    async def _record(self, action: str, target: str, detail: str = "") -> None:
        await record_once(self._store, AuditEntry(self._by, "redis", action, target, detail=detail))
