"""What operators change: settings that replicas read again, a replica that sends its clients away, the retention."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from progress_broker.model.grants import Action
from progress_broker.operations.retention import NewRetention, RetentionState, read_state, set_retention
from progress_broker.replicas import changes
from progress_broker.replicas.changes import Drained, Reloads
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.bodies import read_model
from progress_server.http.openapi import Responses, rejections
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note

router = APIRouter(prefix="/v1/admin", tags=["operators"], route_class=CheckedRoute)

_NO_REPLICA: Responses = rejections("conflict") | {
    404: rejections("not-found")[404] | {"description": "There is no such replica (`not-found`)."}
}
_RETENTION: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": NewRetention.model_json_schema()}}, "required": True}
}


@router.post("/reload", response_model=Reloads)
async def reload(request: Request, context: InContext) -> Response:
    """Have all replicas read their settings again: keys, certificates, rates and the log level.

    A replica takes all that is new, or nothing if it can't use some of it; `error` then says why. Open streams go on.
    """
    require_permission_everywhere(request, Action.ADMIN)
    report = await changes.reload_all(context.store)
    note(request.scope, "", report.described())
    return answer(report)


@router.post("/drain", response_model=Drained, responses=_NO_REPLICA)
async def drain(
    request: Request,
    context: InContext,
    replica: Annotated[str, Query(description="The id of the replica, as `/v1/admin/replicas` lists it.")],
    force: Annotated[bool, Query(description="Drain it also if no other replica is ready.")] = False,
) -> Response:
    """Have a replica send all its clients to the others. It takes no new ones until it is started again."""
    note(request.scope, replica, "by force" if force else "")
    require_permission_everywhere(request, Action.ADMIN)
    return answer(await changes.drain(context.store, replica, force=force))


@router.get("/retention", response_model=RetentionState)
async def retention(request: Request, context: InContext) -> Response:
    """Get how long operations are kept, in seconds: after their end, and without events if they have not ended."""
    require_permission_everywhere(request, Action.OBSERVE)
    return answer(await read_state(context.store))


@router.put("/retention", response_model=RetentionState, openapi_extra=_RETENTION)
async def change_retention(request: Request, context: InContext) -> Response:
    """Set how long operations are kept, also existing ones. What is left out stays as it is.

    It looks at each operation, and answers at the end: of 100,000 operations after some seconds. If it was interrupted,
    repeat it.
    """
    require_permission_everywhere(request, Action.ADMIN)
    new = await read_model(request, NewRetention)
    state = await set_retention(context.store, new)
    note(request.scope, "", state.described())
    return answer(state)
