"""A session: a browser keeps its user's token in a cookie that scripts can't read, so that pages need not hold it.

How people get such a token is told to everybody, as a part of what the page is made of.
"""

import math
import time
from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from progress_broker.errors import Forbidden, TooLarge
from progress_broker.model.operation import Time
from progress_server.auth.api_keys import PREFIX
from progress_server.auth.credentials import bearer_or_cookie
from progress_server.auth.principal import Principal, principal_of
from progress_server.context import Context, InContext
from progress_server.http.answers import answer
from progress_server.http.openapi import refused

router = APIRouter(tags=["session"])

MOST_BYTES = 3_800
"""A token that browsers keep: they give a cookie 4 KiB, with its name and attributes."""

_BY: dict[str, Literal["nobody", "token", "back-end"]] = {"none": "nobody", "jwt": "token", "callback": "back-end"}


class Session(BaseModel):
    """Whom the server takes the caller for."""

    principal: str
    """Empty where nobody has to prove anything."""
    expires_at: Time | None
    kept: bool
    """Whether it is by a token that the browser keeps, and can be told to forget."""


class SignIn(BaseModel):
    """What proves who one is, and where to get it."""

    by: Literal["nobody", "token", "back-end"]
    url: str | None


@router.get("/v1/session", response_model=Session)
async def session(request: Request, context: InContext) -> Response:
    """Tell whom the server takes the caller for, and until when."""
    by_cookie = "authorization" not in request.headers and _token_of(request, context) is not None
    return _told(principal_of(request), kept=by_cookie)


@router.post("/v1/session", status_code=201, response_model=Session, responses=refused("too-large"))
async def sign_in(request: Request, context: InContext) -> Response:
    """Have the browser keep the token that this call brings, in a cookie, for as long as it is good.

    Where a back end decides, that is not known: it is asked each time, and the browser keeps it until it is closed.
    """
    principal, name, token = principal_of(request), context.settings.jwt_cookie, _token_of(request, context)
    asked = context.settings.auth == "callback"
    if not name or token is None or (principal.expires_at is None and not asked):
        what = "there is no session to be had"
        raise Forbidden(f"{what}: it takes PROGRESS_AUTH, PROGRESS_JWT_COOKIE and a user's token")
    if len(token) > MOST_BYTES:
        raise TooLarge(f"the token is over {MOST_BYTES} bytes, which browsers don't keep in a cookie")
    told = _told(principal, 201, kept=True)
    ends = None if asked else principal.expires_at
    _set_cookie(told, request, name, token, None if ends is None else math.floor(ends - time.time()))
    return told


@router.delete("/v1/session", status_code=204)
async def sign_out(request: Request, context: InContext) -> Response:
    """Have the browser forget the token. It stays good elsewhere: `progress-broker auth revoke` ends it everywhere."""
    forgotten = Response(status_code=204)
    if context.settings.jwt_cookie:
        _set_cookie(forgotten, request, context.settings.jwt_cookie, "", 0)
    return forgotten


@router.get("/web/sign-in.json", include_in_schema=False)
async def ways(context: InContext) -> Response:
    """Tell it."""
    settings = context.settings
    return answer(SignIn(by=_BY[settings.auth], url=settings.sign_in_url), headers={"Cache-Control": "no-cache"})


def _token_of(request: Request, context: Context) -> str | None:
    settings = context.settings
    token = bearer_or_cookie(request, settings.jwt_cookie, settings.cors_origins)
    return None if token is None or token.startswith(PREFIX) else token


def _set_cookie(response: Response, request: Request, name: str, value: str, left_s: int | None) -> None:
    # Strict: no other site's link or form brings it along. Secure wherever the browser came over https.
    path = request.scope.get("root_path") or "/"
    secure = request.url.scheme == "https"
    left_s = None if left_s is None else max(0, left_s)
    response.set_cookie(name, value, max_age=left_s, path=path, secure=secure, httponly=True, samesite="strict")


def _told(principal: Principal, status: int = 200, *, kept: bool) -> Response:
    ends = None if principal.expires_at is None else datetime.fromtimestamp(principal.expires_at, UTC)
    return answer(Session(principal=principal.name, expires_at=ends, kept=kept), status)
