"""`GET /metrics`: what this process has done and holds, for Prometheus."""

import os

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from starlette.responses import Response

from api.authorization import permit_everywhere
from api.collector import ByProcess, ReplicaCollector
from api.context import InContext
from broker.grants import Action
from broker.hub import Hub
from broker.reaper import Reaper

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
