"""How people sign in, for the page: part of what the page is made of, which is the same for everybody."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from progress_server.context import InContext

router = APIRouter(include_in_schema=False)

_BY: dict[str, Literal["nobody", "token", "back-end"]] = {"none": "nobody", "jwt": "token", "callback": "back-end"}


class SignIn(BaseModel):
    """What proves who one is, and where to get it."""

    by: Literal["nobody", "token", "back-end"]
    url: str | None


@router.get("/web/sign-in.json")
async def ways(context: InContext) -> Response:
    """Tell it."""
    settings = context.settings
    body = SignIn(by=_BY[settings.auth], url=settings.sign_in_url).model_dump_json()
    return Response(body, headers={"Cache-Control": "no-cache"}, media_type="application/json")
