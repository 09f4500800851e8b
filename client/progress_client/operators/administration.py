"""What operators ask of the replicas, through a server or in Redis itself, and what they change there."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Protocol

from progress_broker.access.audit import AuditFilter, AuditPage
from progress_broker.access.deny_list import Claim, RevokedClaim
from progress_broker.limits.principals import NewLimits, PrincipalLimits
from progress_broker.operations.retention import NewRetention, RetentionState
from progress_broker.replicas.changes import Drained, Reloads
from progress_broker.replicas.figures import Stats, Workers
from progress_broker.replicas.presence import Replicas
from progress_broker.replicas.streams import Kicked, StreamFilter, StreamsPage
from progress_broker.replicas.usage import Storage


class Administration(Protocol):
    """The calls. Each method raises a `BrokerError` if it fails."""

    async def replicas(self) -> Replicas:
        """Return the replicas that are present."""

    async def stats(self) -> Stats:
        """Return figures of the whole installation."""

    async def workers(self) -> Workers:
        """Return the workers of operations that have not ended."""

    async def storage(self, sample: int) -> Storage:
        """Return what takes room, from a sample of operations."""

    async def all_storage(self, rps: float, tell: Callable[[int], None]) -> Storage:
        """Return what all operations take; at most `rps` of them are looked at per second, and told of.

        Raises `SetupError` through a server.
        """

    async def streams(self, wanted: StreamFilter, *, limit: int, cursor: str | None) -> StreamsPage:
        """Return a page of the open streams of all replicas."""

    async def kick(self, connection: str, *, for_good: bool) -> Kicked:
        """End a stream."""

    async def reload(self) -> Reloads:
        """Have all replicas read their settings again."""

    async def drain(self, replica: str, *, force: bool) -> Drained:
        """Have a replica send all its clients to the others."""

    async def limits(self) -> list[PrincipalLimits]:
        """Return the principals with limits of their own."""

    async def set_limits(self, principal: str, new: NewLimits) -> PrincipalLimits:
        """Set the limits of a principal."""

    async def remove_limits(self, principal: str) -> None:
        """Have the limits of the settings apply to a principal again; raise `NotFound` if it had none."""

    async def retention(self) -> RetentionState:
        """Return how long operations are kept."""

    async def set_retention(self, new: NewRetention, tell: Callable[[int], None]) -> RetentionState:
        """Set how long operations are kept, and return what came of it.

        In Redis itself, `tell` is called with how many operations were looked at so far.
        """

    async def revoke(self, claim: Claim, value: str, for_s: float) -> None:
        """Revoke a principal (`sub`) or a token (`jti`) for `for_s` seconds: 1 at least."""

    async def restore(self, claim: Claim, value: str) -> None:
        """Withdraw a revocation; raise `NotFound` if there is none."""

    def revoked(self) -> AsyncGenerator[RevokedClaim]:
        """Yield what is revoked, the last to end first."""

    async def audit(self, wanted: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
        """Return a page of who changed what, newest first."""

    async def info(self) -> list[dict[str, Any]]:
        """Return what each server of Redis tells of itself. Raises `SetupError` through a server."""

    async def metrics(self) -> str:
        """Return the metrics of the server that answers, as text. Raises `SetupError` without a server."""

    def monitor(self, query: Mapping[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the lines of a server's log, as they are written. Raises `SetupError` without a server."""
