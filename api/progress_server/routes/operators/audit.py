"""The call that reads who changed what."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from progress_broker.access.audit import AuditFilter, AuditPage, read_audit
from progress_broker.errors import InvalidInput
from progress_broker.model.grants import Action
from progress_broker.queries.times import read_time
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.query_names import CheckedRoute

router = APIRouter(tags=["operators"], route_class=CheckedRoute)


@router.get("/v1/audit", response_model=AuditPage)
async def audit(
    request: Request,
    context: InContext,
    since: Annotated[
        str | None, Query(description="Only entries from this time on: `1h` ago, `2026-11-30T14:05:00Z`, milliseconds.")
    ] = None,
    action: Annotated[str | None, Query(description="Only this action, such as `cancel`.")] = None,
    who: Annotated[str | None, Query(description="Only what this principal did.")] = None,
    target: Annotated[str | None, Query(description="Only what was done to this.")] = None,
    result: Annotated[str | None, Query(description="Only entries with this result: `ok`, or an error code.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Maximum number of entries.")] = 100,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the previous page.")] = None,
) -> Response:
    """Read who changed what, newest first.

    About 10,000 entries are kept, and as many of created operations, which are kept apart.
    """
    require_permission_everywhere(request, Action.AUDIT)
    try:
        since_ms = None if since is None else read_time(since, round(time.time() * 1000))
    except ValueError as error:
        raise InvalidInput(f"since: {error}", field="since") from None
    wanted = AuditFilter(action=action, who=who, target=target, result=result, since_ms=since_ms)
    return answer(await read_audit(context.store, wanted, limit=limit, cursor=cursor))
