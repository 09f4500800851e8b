"""What operators see of the replicas: which there are, and how they are."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from progress_broker.model.grants import Action
from progress_broker.replicas.presence import Replicas, list_replicas
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.query_names import CheckedRoute

router = APIRouter(prefix="/v1/admin", tags=["operators"], route_class=CheckedRoute)


@router.get("/replicas", response_model=Replicas)
async def replicas(request: Request, context: InContext) -> Response:
    """List the replicas that are present, with what each of them told of itself in the last seconds.

    `differing` has the settings that should be the same everywhere, but are not.
    """
    require_permission_everywhere(request, Action.OBSERVE)
    return answer(await list_replicas(context.store))
