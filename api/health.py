"""Health: is the process alive, and can it serve?"""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from api.context import InContext
from api.problems import problem

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> Response:
    """Answer, which proves the process alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz")
async def readyz(context: InContext) -> Response:
    """Answer 200 while the feeds are read and new streams are taken."""
    if context.hub.draining:
        return problem("draining", "this server is stopping", reason="draining")
    if not context.hub.connected:
        return problem("storage-unavailable", "the feeds can't be read: is Redis up?")
    return JSONResponse({"status": "ready"})
