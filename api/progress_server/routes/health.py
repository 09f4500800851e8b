"""Health checks (`/livez`, `/readyz`) and metrics."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from prometheus_client import generate_latest
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from progress_broker.errors import StorageReadOnly
from progress_broker.live.probe import NotReadyReason
from progress_broker.model.grants import Action
from progress_broker.storage import lanes
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import Context, InContext, context_of
from progress_server.http.openapi import rejections
from progress_server.http.problems import problem
from progress_server.middleware.startup import not_started

DETAILS: dict[NotReadyReason, str] = {
    "redis away": "Redis does not answer; check that it is running and that this server can reach it",
    "redis replica": "the Redis at PROGRESS_REDIS_URL is a replica and rejects writes; set the master's address there",
    "redis full": "Redis is out of memory or disk and rejects new events; operations can still be read and deleted",
    "publish fails": "Redis responds but rejects writes; see this server's log for the reason",
    "feed silent": "Redis accepts new events, but they do not arrive through the feeds; see this server's log",
}

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Response:
    """Liveness check: any response proves that the process is alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=rejections("draining", "storage-unavailable", "invalid"))
async def readyz(
    request: Request,
    all: Annotated[bool, Query(description="Be ready only if every lane is.")] = False,
) -> Response:
    """Readiness check: 200 while this replica accepts new streams and receives published events through its feeds.

    While Redis is full, the status is also 200, with a `detail`. Otherwise a load balancer would remove every replica,
    and clients could not even read.

    Redis may be several servers. While some of them are away, the operations in their lanes are, and the others are
    served: the status is 200, with the numbers of these lanes in `away`, or 503 with `all=1`.
    """
    if not hasattr(request.app.state, "context"):
        error = not_started(request.scope)
        cause: NotReadyReason = "redis replica" if isinstance(error, StorageReadOnly) else "redis away"
        return problem("storage-unavailable", error.detail, reason=cause)
    hub = context_of(request).hub
    if hub.draining:
        return problem("draining", "this server is shutting down", reason="draining")
    away = hub.lanes_away
    if not away:
        full = hub.not_ready_reason
        reason = {} if full is None else {"reason": full, "detail": DETAILS[full]}
        return JSONResponse({"status": "ready", **reason})
    lane, first = next(iter(away.items()))
    detail = _explained(first, hub.probes[lane].detail)
    if len(away) == hub.lanes:
        return problem("storage-unavailable", detail, reason=first)
    detail = f"{lanes.shown(away)} of {hub.lanes}: {detail}"
    if all:
        return problem("storage-unavailable", detail, reason=first, lanes=hub.lanes, away=sorted(away))
    return JSONResponse({"status": "ready", "lanes": hub.lanes, "away": sorted(away), "detail": detail})


def _explained(doubt: NotReadyReason, cause: str) -> str:
    if doubt == "redis replica" and cause:  # it names the server and its master, and says what to do
        return cause
    return f"{DETAILS[doubt]} ({cause})" if cause else DETAILS[doubt]


async def _refresh(context: Context) -> None:
    """Read what metrics tell of Redis."""
    await asyncio.gather(context.hub.masters.refresh(), context.read_redis())


async def metrics_text(app: FastAPI) -> str:
    """Return the metrics of an app in the Prometheus text format; empty while it waits for Redis."""
    context: Context | None = getattr(app.state, "context", None)
    if context is None:
        return ""
    await _refresh(context)
    return generate_latest(context.metrics).decode()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, context: InContext) -> Response:
    """Metrics of this process, in the Prometheus text format, or in OpenMetrics if the client accepts it."""
    require_permission_everywhere(request, Action.METRICS)
    await _refresh(context)
    encode, media_type = choose_encoder(request.headers.get("accept") or "")
    return Response(encode(context.metrics), media_type=None, headers={"Content-Type": media_type})
