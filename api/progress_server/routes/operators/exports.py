"""The calls that move operations: exports as lines, and an import of such lines."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from progress_broker.errors import BrokerError, StorageUnavailable, Unauthenticated
from progress_broker.model.grants import Action
from progress_broker.queries.fields import Pairs
from progress_broker.queries.filters import Filters
from progress_broker.transfer.ahead import with_waits
from progress_broker.transfer.endpoints import ImportOptions, OnConflict, Positions, Unfinished, described
from progress_broker.transfer.files.chunk_source import ChunkSource
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.redis.source import RedisSource
from progress_broker.transfer.redis.target import RedisTarget
from progress_server.auth.authorization import require_permission, require_permission_everywhere
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext
from progress_server.http.bodies import chunks
from progress_server.http.openapi import rejections
from progress_server.http.paths import EXPORT_OF_MANY, EXPORT_OF_ONE
from progress_server.http.problems import problem
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note
from progress_server.routes.operators.query import filters_of, with_filters

router = APIRouter(tags=["operators"], route_class=CheckedRoute)

LINES = "application/x-ndjson"
WAIT_S = 15.0
"""How often a line is sent while Redis is waited for: proxies cut responses that are silent."""
_WAIT = b'{"k":"wait"}\n'
_BODY: dict[str, Any] = {LINES: {"schema": {"type": "string"}}}
_EXPORT: dict[int | str, Any] = {200: {"description": "The lines of an export.", "content": _BODY}}
_OUTCOMES: dict[int | str, Any] = {200: {"description": "A line for each operation.", "content": _BODY}}


@router.get(EXPORT_OF_MANY, response_class=Response, responses=_EXPORT)
@with_filters
async def export_many(request: Request, context: InContext, query: Pairs) -> Response:
    """Export the operations that match, with all that is kept of their events, as lines of JSON.

    The last line is `eof`. Without it the export was cut short, for example because Redis became unavailable. Lines
    `wait` mean nothing. It counts as a stream.
    """
    filters = await filters_of(context.store, query)
    return _exported(request, context, filters.of_caller(principal_of(request).grants))


@router.get(EXPORT_OF_ONE, response_class=Response, responses=_EXPORT)
async def export_one(operation: Id, request: Request, context: InContext) -> Response:
    """Export an operation, with all that is kept of its events, as lines of JSON. The last line is `eof`."""
    await require_permission(request, context, Action.READ, operation)
    await context.store.get(operation)  # it raises `NotFound` or `Gone`
    return _exported(request, context, Filters(ids=(operation,)))


def _exported(request: Request, context: Context, filters: Filters) -> Response:
    headers = {"Cache-Control": "no-store", "Content-Disposition": 'attachment; filename="export.ndjson"'}
    if request.method == "HEAD":
        return Response(b"", headers=headers, media_type=LINES)
    return StreamingResponse(_lines(request, context, filters), headers=headers, media_type=LINES)


async def _lines(request: Request, context: Context, filters: Filters) -> AsyncGenerator[bytes]:
    principal, revocation = principal_of(request), guard_of(request).revocation
    lines = with_waits(export_lines(RedisSource(context.store, filters)), WAIT_S, _WAIT)
    try:
        async with aclosing(lines):
            async for some in lines:
                if revocation.is_expired_or_revoked(principal):
                    return  # it has no `eof` then
                yield some
    except StorageUnavailable:
        return  # likewise: the response has begun


@router.post(
    "/v1/import",
    response_class=Response,
    responses={**rejections("invalid", "too-large"), **_OUTCOMES},
    openapi_extra={"requestBody": {"required": True, "content": {**_BODY, "text/plain": _BODY[LINES]}}},
)
async def import_lines(
    request: Request,
    context: InContext,
    positions: Positions = Positions.KEEP,
    on_conflict: OnConflict = OnConflict.FAIL,
    suffix: str = "",
    unfinished: Unfinished = Unfinished.REFUSE,
    dry_run: bool = False,
    partial: bool = False,
) -> Response:
    """Store the operations of an export, each whole or not at all, while its lines arrive.

    The response has a line for each operation: `id`, `result` and `why`. If the export is damaged, or Redis becomes
    unavailable, `accepted` of the problem is how many operations came before. The same may be sent again.
    """
    require_permission_everywhere(request, Action.ADMIN)
    options = ImportOptions(positions, on_conflict, suffix, unfinished, dry_run)
    source = ChunkSource(_chunks(request), partial=partial)
    outcomes: list[bytes] = []
    results: Counter[str] = Counter()
    try:
        stored = RedisTarget(context.store).store(source, options)
        async for outcome in stored:
            results[outcome.result] += 1
            outcomes += (orjson.dumps(outcome._asdict()), b"\n")
    except Unauthenticated:
        raise
    except BrokerError as error:
        return problem(error.code, error.detail, field=error.field, accepted=results.total())
    finally:
        note(request.scope, "", f"{described(results)}{' (dry run)' if dry_run else ''}")
    return Response(b"".join(outcomes), headers={"Cache-Control": "no-store"}, media_type=LINES)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    principal, revocation = principal_of(request), guard_of(request).revocation
    async for chunk in chunks(request):
        if revocation.is_expired_or_revoked(principal):
            raise Unauthenticated("the credentials expired or were revoked during an import")
        yield chunk
