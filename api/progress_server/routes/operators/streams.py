"""The open streams of all replicas, and the call that ends one."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from progress_broker.model.grants import Action
from progress_broker.replicas import streams as open_streams
from progress_broker.replicas.streams import CONNECTION, MOST, Kicked, StreamFilter, StreamsPage
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.openapi import Responses, rejections
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note

router = APIRouter(prefix="/v1/admin/streams", tags=["operators"], route_class=CheckedRoute)

_NAME: dict[str, Any] = {"pattern": f"^{CONNECTION}$"}
_NONE: Responses = {404: rejections("not-found")[404] | {"description": "There is no such stream (`not-found`)."}}


@router.get("", response_model=StreamsPage)
async def streams(
    request: Request,
    context: InContext,
    operation: Annotated[str | None, Query(description="Only streams of this one operation.")] = None,
    principal: Annotated[str | None, Query(description="Only streams of this principal.")] = None,
    address: Annotated[str | None, Query(description="Only streams of this client address.")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST, description="Maximum number of streams.")] = 100,
    cursor: Annotated[
        str | None, Query(description="`next_cursor` of the previous page.", json_schema_extra=_NAME)
    ] = None,
) -> Response:
    """List the open streams of all replicas: who follows what, and from where.

    All replicas are asked, which takes two seconds if one of them does not answer; `silent` names those.
    """
    require_permission_everywhere(request, Action.OBSERVE)
    wanted = StreamFilter(operation=operation, principal=principal, address=address)
    return answer(await open_streams.list_streams(context.store, wanted, limit=limit, cursor=cursor))


@router.delete("/{connection}", response_model=Kicked, responses=_NONE)
async def kick(
    request: Request,
    context: InContext,
    connection: Annotated[str, Path(description="The name of the connection.", json_schema_extra=_NAME)],
    for_good: Annotated[bool, Query(description="Tell the client not to come back.")] = False,
) -> Response:
    """End a stream, whichever replica it is at.

    Its client is asked to come back, unless it is `for_good`. That is a request, which ours and browsers' obey: to keep
    a caller out, revoke its credentials. If the stream's replica does not answer within two seconds, the status is 503.
    """
    require_permission_everywhere(request, Action.ADMIN)
    kicked = await open_streams.kick(context.store, connection, for_good=for_good)
    note(request.scope, connection, kicked.described())
    return answer(kicked)
