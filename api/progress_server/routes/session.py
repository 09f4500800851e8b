"""Browser sessions: the browser keeps the user's token in a cookie that scripts can't read, so pages need not hold it.

How users sign in is public: the dashboard loads it before anybody has signed in.
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
from progress_server.http.openapi import rejections

router = APIRouter(tags=["session"])

MOST_BYTES = 3_800
"""Maximum size of a token in a cookie. Browsers limit a cookie to 4 KiB, including its name and attributes."""

_BY: dict[str, Literal["nobody", "token", "back-end"]] = {"none": "nobody", "jwt": "token", "callback": "back-end"}


class SignedIn(BaseModel):
    """The identity of the caller, as the server sees it."""

    principal: str
    """Empty without authentication (`PROGRESS_AUTH=none`)."""
    expires_at: Time | None
    kept: bool
    """Whether the token is in a session cookie, which `DELETE /v1/session` can remove."""


class SignIn(BaseModel):
    """How users sign in: the kind of credentials, and the URL of the sign-in page if there is one."""

    by: Literal["nobody", "token", "back-end"]
    url: str | None


@router.get("/v1/session", response_model=SignedIn)
async def session(request: Request, context: InContext) -> Response:
    """Return the identity of the caller, and when its credentials expire."""
    by_cookie = "authorization" not in request.headers and _token_of(request, context) is not None
    return _described(principal_of(request), kept=by_cookie)


@router.post("/v1/session", status_code=201, response_model=SignedIn, responses=rejections("too-large"))
async def sign_in(request: Request, context: InContext) -> Response:
    """Store the token of this request in a session cookie, until the token expires.

    With `PROGRESS_AUTH=callback` the expiry is unknown, because the back end decides for each request. The browser
    then keeps the cookie until it is closed.
    """
    principal, name, token = principal_of(request), context.settings.jwt_cookie, _token_of(request, context)
    by_callback = context.settings.auth == "callback"
    if not name or token is None or (principal.expires_at is None and not by_callback):
        raise Forbidden(
            "this server can't create a session: that needs PROGRESS_AUTH and PROGRESS_JWT_COOKIE, and a user's"
            " token that expires"
        )
    if len(token) > MOST_BYTES:
        raise TooLarge(f"the token exceeds {MOST_BYTES} bytes, and browsers do not store larger cookies")
    response = _described(principal, 201, kept=True)
    ends = None if by_callback else principal.expires_at
    _set_cookie(response, request, name, token, None if ends is None else math.floor(ends - time.time()))
    return response


@router.delete("/v1/session", status_code=204)
async def sign_out(request: Request, context: InContext) -> Response:
    """Remove the session cookie. The token stays valid; `progress-broker auth revoke` revokes it everywhere."""
    forgotten = Response(status_code=204)
    if context.settings.jwt_cookie:
        _set_cookie(forgotten, request, context.settings.jwt_cookie, "", 0)
    return forgotten


@router.get("/web/sign-in.json", include_in_schema=False)
async def ways(context: InContext) -> Response:
    """Return how users sign in."""
    settings = context.settings
    by = "back-end" if context.app_decides else _BY[settings.auth]
    return answer(SignIn(by=by, url=settings.sign_in_url), headers={"Cache-Control": "no-cache"})


def _token_of(request: Request, context: Context) -> str | None:
    settings = context.settings
    if context.app_decides:  # its credentials are its own matter, and stay where they are
        return None
    token = bearer_or_cookie(request, settings.jwt_cookie, settings.cors_origins)
    return None if token is None or token.startswith(PREFIX) else token


def _set_cookie(response: Response, request: Request, name: str, value: str, left_s: int | None) -> None:
    # Strict: requests from links or forms of other sites do not carry it. Secure if the browser used HTTPS.
    path = request.scope.get("root_path") or "/"
    secure = request.url.scheme == "https"
    left_s = None if left_s is None else max(0, left_s)
    response.set_cookie(name, value, max_age=left_s, path=path, secure=secure, httponly=True, samesite="strict")


def _described(principal: Principal, status: int = 200, *, kept: bool) -> Response:
    ends = None if principal.expires_at is None else datetime.fromtimestamp(principal.expires_at, UTC)
    return answer(SignedIn(principal=principal.name, expires_at=ends, kept=kept), status)
