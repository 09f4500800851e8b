"""`GET /metrics`: what this process has done and holds, for Prometheus."""

import os

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response

from progress_broker.hub import Hub
from progress_broker.model.grants import Action
from progress_broker.operations.reaper import Reaper
from progress_server.auth.authorization import permit_everywhere
from progress_server.context import InContext
from progress_server.observability.metrics import ByProcess, ReplicaCollector

router = APIRouter(tags=["health"])


def registry_of(hub: Hub, reaper: Reaper, *, processes: int) -> CollectorRegistry:
    """Return a registry of an app's own, as there may be many apps in a process, and many processes at an address."""
    registry = CollectorRegistry()
    collectors = (ReplicaCollector(hub, reaper), ProcessCollector(registry=None))
    for collector in collectors if processes == 1 else (ByProcess(os.getpid(), collectors),):
        registry.register(collector)
    return registry


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, context: InContext) -> Response:
    """Tell figures of this process, in the text format of Prometheus or, to who accepts it, of OpenMetrics."""
    permit_everywhere(request, Action.METRICS)
    await context.hub.memory.refresh()
    encode, media_type = choose_encoder(request.headers.get("accept") or "")
    return Response(encode(context.metrics), media_type=None, headers={"Content-Type": media_type})
