"""What operators see of the replicas, of the workers, and of what is in Redis."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from progress_broker.model.grants import Action
from progress_broker.replicas import figures, usage
from progress_broker.replicas.figures import MOST_LOOKED, Stats, Workers
from progress_broker.replicas.presence import Replicas, list_replicas
from progress_broker.replicas.usage import Storage
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


@router.get("/stats", response_model=Stats)
async def stats(request: Request, context: InContext) -> Response:
    """Get figures of the whole installation: operations by status, events per second, streams, memory of Redis."""
    require_permission_everywhere(request, Action.OBSERVE)
    return answer(await figures.read_stats(context.store))


@router.get("/workers", response_model=Workers)
async def workers(request: Request, context: InContext) -> Response:
    """List the workers of operations that have not ended, those with the longest silence first.

    At most 4,000 operations are looked at, the longest without a change first; `partial` says if there are more.
    """
    require_permission_everywhere(request, Action.OBSERVE)
    return answer(await figures.read_workers(context.store))


@router.get("/storage", response_model=Storage)
async def storage(
    request: Request,
    context: InContext,
    sample: Annotated[int, Query(ge=1, le=MOST_LOOKED, description="How many operations to look at.")] = 1_000,
) -> Response:
    """Get what takes room in Redis, by kind and status, from a random sample of operations, and the longest of them."""
    require_permission_everywhere(request, Action.OBSERVE)
    return answer(await usage.read_storage(context.store, sample))
