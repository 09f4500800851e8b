"""How a replica is: whether it is alive, whether it can serve, and its metrics."""

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from progress_broker.model.grants import Action
from progress_broker.operations.probe import Doubt
from progress_server.auth.authorization import permit_everywhere
from progress_server.context import InContext, context_of
from progress_server.http.openapi import refused
from progress_server.http.problems import problem
from progress_server.middleware.startup import not_started

DETAILS: dict[Doubt, str] = {
    "redis away": "Redis does not take what is published: is it up?",
    "redis full": "Redis is full, out of memory or of disk: it takes no events. What it holds can be read and deleted",
    "publish fails": "Redis answers, but refuses what is published: this server's log says why",
    "feed silent": "Redis takes what is published, but it does not come back through the feeds",
}

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Response:
    """Answer, which proves the process alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=refused("draining", "storage-unavailable"))
async def readyz(request: Request) -> Response:
    """Answer 200 while new streams are taken and what is published has been seen to come out of the feeds.

    Where Redis is full the answer is 200 as well, with a `detail`: to take every replica away would end reading, too.
    """
    if not hasattr(request.app.state, "context"):
        return problem("storage-unavailable", not_started(request.scope).detail, reason="redis away")
    hub = context_of(request).hub
    if hub.draining:
        return problem("draining", "this server is stopping", reason="draining")
    doubt = hub.doubt
    if doubt is None:
        return JSONResponse({"status": "ready"})
    if hub.ready:
        return JSONResponse({"status": "ready", "reason": doubt, "detail": DETAILS[doubt]})
    return problem("storage-unavailable", DETAILS[doubt], reason=doubt)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, context: InContext) -> Response:
    """Tell figures of this process, in the text format of Prometheus or, to who accepts it, of OpenMetrics."""
    permit_everywhere(request, Action.METRICS)
    await context.hub.memory.refresh()
    encode, media_type = choose_encoder(request.headers.get("accept") or "")
    return Response(encode(context.metrics), media_type=None, headers={"Content-Type": media_type})
