"""The calls that set limits of single principals, list them, and remove them."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from progress_broker.errors import NotFound
from progress_broker.limits import principals
from progress_broker.limits.principals import AllLimits, NewLimits, PrincipalLimits, list_limits
from progress_broker.model.grants import Action
from progress_broker.model.operation import Label
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.auth.principal import principal_of
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.bodies import read_model
from progress_server.http.openapi import Responses, rejections
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note

router = APIRouter(prefix="/v1/admin/limits", tags=["operators"], route_class=CheckedRoute)

_ONE = "/{principal:path}"
_BODY: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": NewLimits.model_json_schema()}}, "required": True}
}
_NONE: Responses = {
    404: rejections("not-found")[404] | {"description": "The principal has no limits of its own (`not-found`)."}
}
Name = Annotated[Label, Path(alias="principal", description="The name of the principal.")]


@router.get("", response_model=AllLimits)
async def limits(request: Request, context: InContext) -> Response:
    """List the principals with limits of their own, by name."""
    require_permission_everywhere(request, Action.ADMIN)
    return answer(AllLimits(limits=await list_limits(context.store)))


@router.put(_ONE, response_model=PrincipalLimits, openapi_extra=_BODY)
async def set_limits(principal: Name, request: Request, context: InContext) -> Response:
    """Set the limits of a principal, in place of those of the settings. What is left out is as for all; 0 is no limit.

    All replicas apply them within about a second. What workers do in Redis itself is not limited.
    """
    require_permission_everywhere(request, Action.ADMIN)
    new = await read_model(request, NewLimits)
    note(request.scope, principal, new.described())
    return answer(await principals.set_limits(context.store, principal, new, principal_of(request).name))


@router.delete(_ONE, status_code=204, responses=_NONE)
async def remove_limits(principal: Name, request: Request, context: InContext) -> Response:
    """Have the limits of the settings apply to a principal again."""
    require_permission_everywhere(request, Action.ADMIN)
    if not await principals.remove_limits(context.store, principal):
        raise NotFound(f"{principal!r} has no limits of its own")
    return Response(status_code=204)
