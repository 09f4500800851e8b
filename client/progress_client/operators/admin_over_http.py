"""What operators ask of the replicas, by requests to a server."""

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

import orjson
from pydantic import BaseModel

from progress_broker.access.audit import AuditFilter, AuditPage
from progress_broker.access.deny_list import Claim, RevokedClaim
from progress_broker.errors import SetupError
from progress_broker.limits.principals import AllLimits, NewLimits, PrincipalLimits
from progress_broker.operations.retention import NewRetention, RetentionState
from progress_broker.replicas.changes import Drained, Reloads
from progress_broker.replicas.figures import Stats, Workers
from progress_broker.replicas.presence import Replicas
from progress_broker.replicas.streams import Kicked, StreamFilter, StreamsPage
from progress_broker.replicas.usage import Storage
from progress_client.http.connection import Answer, AsyncConnection, Query
from progress_client.http.problems import read_answer
from progress_client.over_http.event_stream import EventStreamReader
from progress_client.over_http.over_http import SILENCE_S

ADMIN = "/v1/admin"
REVOCATIONS = "/v1/revocations"
RETENTION_S = 600.0
"""How long a server may take to change the retention of all operations."""
_PAGE = 1_000
_STREAM = {"Accept": "text/event-stream, application/problem+json"}

M = TypeVar("M", bound=BaseModel)


class _Revocation(BaseModel):
    claim: Claim
    value: str
    until: datetime


class _Revocations(BaseModel):
    revocations: list[_Revocation]
    next_cursor: str | None


class AdminOverHttp:
    """Asks a server."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def replicas(self) -> Replicas:
        """Return the replicas that are present."""
        return self._read(Replicas, await self._ask("GET", "/replicas"))

    async def stats(self) -> Stats:
        """Return figures of the whole installation."""
        return self._read(Stats, await self._ask("GET", "/stats"))

    async def workers(self) -> Workers:
        """Return the workers of operations that have not ended."""
        return self._read(Workers, await self._ask("GET", "/workers"))

    async def storage(self, sample: int) -> Storage:
        """Return what takes room, from a sample of operations."""
        return self._read(Storage, await self._ask("GET", "/storage", _query({"sample": sample})))

    async def all_storage(self, rps: float, tell: Callable[[int], None]) -> Storage:
        """Raise `SetupError`: a request could not last so long."""
        raise SetupError("each operation is looked at in Redis itself only: set PROGRESS_REDIS_URL, or use --redis-url")

    async def streams(self, wanted: StreamFilter, *, limit: int, cursor: str | None) -> StreamsPage:
        """Return a page of the open streams of all replicas."""
        query = _query({**wanted.model_dump(), "limit": limit, "cursor": cursor})
        return self._read(StreamsPage, await self._ask("GET", "/streams", query))

    async def kick(self, connection: str, *, for_good: bool) -> Kicked:
        """End a stream."""
        query = _query({"for_good": "true" if for_good else None})
        return self._read(Kicked, await self._ask("DELETE", f"/streams/{_quoted(connection)}", query))

    async def reload(self) -> Reloads:
        """Have all replicas read their settings again."""
        return self._read(Reloads, await self._ask("POST", "/reload"))

    async def drain(self, replica: str, *, force: bool) -> Drained:
        """Have a replica send all its clients to the others."""
        query = _query({"replica": replica, "force": "true" if force else None})
        return self._read(Drained, await self._ask("POST", "/drain", query))

    async def limits(self) -> list[PrincipalLimits]:
        """Return the principals with limits of their own."""
        return self._read(AllLimits, await self._ask("GET", "/limits")).limits

    async def set_limits(self, principal: str, new: NewLimits) -> PrincipalLimits:
        """Set the limits of a principal."""
        path, body = f"{ADMIN}/limits/{_quoted(principal)}", new.model_dump_json().encode()
        answer = await self._connection.request("PUT", path, body=body, repeatable=True)
        return self._read(PrincipalLimits, answer)

    async def remove_limits(self, principal: str) -> None:
        """Have the limits of the settings apply to a principal again; raise `NotFound` if it had none."""
        await self._connection.request("DELETE", f"{ADMIN}/limits/{_quoted(principal)}")

    async def retention(self) -> RetentionState:
        """Return how long operations are kept."""
        return self._read(RetentionState, await self._ask("GET", "/retention"))

    async def set_retention(self, new: NewRetention, tell: Callable[[int], None]) -> RetentionState:
        """Set how long operations are kept. The server answers when it has looked at each operation."""
        path, body = f"{ADMIN}/retention", new.model_dump_json().encode()
        answer = await self._connection.request("PUT", path, body=body, timeout_s=RETENTION_S, repeatable=True)
        return self._read(RetentionState, answer)

    async def revoke(self, claim: Claim, value: str, for_s: float) -> None:
        """Revoke a principal or a token."""
        body = orjson.dumps({"claim": claim, "value": value, "for_s": for_s})
        await self._connection.request("POST", REVOCATIONS, body=body, repeatable=True)

    async def restore(self, claim: Claim, value: str) -> None:
        """Withdraw a revocation; raise `NotFound` if there is none."""
        await self._connection.request("DELETE", REVOCATIONS, query=[("claim", claim), ("value", value)])

    async def revoked(self) -> AsyncGenerator[RevokedClaim]:
        """Yield what is revoked."""
        cursor: str | None = "0"
        while cursor is not None:
            query = _query({"limit": _PAGE, "cursor": cursor})
            page = self._read(_Revocations, await self._connection.request("GET", REVOCATIONS, query=query))
            for it in page.revocations:
                yield RevokedClaim(it.claim, it.value, it.until.timestamp())
            cursor = page.next_cursor

    async def audit(self, wanted: AuditFilter, *, limit: int, cursor: str | None) -> AuditPage:
        """Return a page of who changed what, newest first."""
        values = wanted.model_dump(exclude={"since_ms"}) | {"since": wanted.since_ms, "limit": limit, "cursor": cursor}
        answer = await self._connection.request("GET", "/v1/audit", query=_query(values), repeatable=True)
        return self._read(AuditPage, answer)

    async def info(self) -> list[dict[str, Any]]:
        """Raise `SetupError`: servers do not pass it on."""
        raise SetupError("only Redis itself tells that: set PROGRESS_REDIS_URL, or use --redis-url")

    async def metrics(self) -> str:
        """Return the metrics of the server that answers."""
        return (await self._connection.request("GET", "/metrics", repeatable=True)).body.decode()

    async def monitor(self, query: Mapping[str, str]) -> AsyncGenerator[dict[str, Any]]:
        """Yield the lines of a server's log, as they are written."""
        path, pairs = f"{ADMIN}/monitor", tuple(query.items())
        async with self._connection.stream(path, query=pairs, headers=_STREAM, silence_s=SILENCE_S) as (_, chunks):
            reader = EventStreamReader()
            async for chunk in chunks:
                for message in reader.feed(chunk):
                    if message.type == "log":
                        yield orjson.loads(message.data)

    async def _ask(self, method: str, path: str, query: Query = ()) -> Answer:
        return await self._connection.request(method, ADMIN + path, query=query, repeatable=True)

    def _read(self, model: type[M], answer: Answer) -> M:
        return read_answer(self._connection.url, answer.body, model.model_validate)


def _query(values: dict[str, object]) -> Query:
    return [(name, str(value)) for name, value in values.items() if value is not None]


def _quoted(part: str) -> str:
    return quote(part, safe="")
