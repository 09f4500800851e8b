"""The calls that revoke credentials before they expire, list revocations, and withdraw them."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from progress_broker.access.deny_list import LONGEST_S, Claim, RevokedClaim, list_revoked, restore_claim, revoke_claim
from progress_broker.errors import NotFound
from progress_broker.model.grants import Action
from progress_broker.model.operation import Label, Time
from progress_server.auth.authorization import require_permission_everywhere
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.bodies import read_model
from progress_server.http.openapi import Responses, rejections
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note

router = APIRouter(prefix="/v1/revocations", tags=["revocations"], route_class=CheckedRoute)

_A_DAY_S = 86_400.0
_FURTHEST = 1_000_000


class NewRevocation(BaseModel):
    """What to revoke: a principal with all of its credentials (`sub`), or one token (`jti`)."""

    model_config = ConfigDict(extra="forbid")

    claim: Claim
    value: Label
    for_s: Annotated[float, Field(ge=1, le=LONGEST_S, strict=True)] = _A_DAY_S


class Revocation(BaseModel):
    """A revocation: what is revoked, and until when."""

    claim: Claim
    value: str
    until: Time


class Revocations(BaseModel):
    """A page of revocations; those that end last come first."""

    revocations: list[Revocation]
    next_cursor: str | None


_BODY = {
    "requestBody": {"content": {"application/json": {"schema": NewRevocation.model_json_schema()}}, "required": True}
}
_NONE: Responses = {404: rejections("not-found")[404] | {"description": "There is no such revocation (`not-found`)."}}


@router.get("", response_model=Revocations)
async def revocations(
    request: Request,
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1_000, description="Maximum number of revocations.")] = 100,
    cursor: Annotated[int, Query(ge=0, le=_FURTHEST, description="`next_cursor` of the previous page.")] = 0,
) -> Response:
    """List revocations.

    A page may hold fewer than `limit` revocations and still not be the last: follow `next_cursor` until it is null.
    """
    require_permission_everywhere(request, Action.ADMIN)
    page, following = await list_revoked(context.store, cursor, limit)
    described = [_described(denial) for denial in page]
    return answer({"revocations": described, "next_cursor": None if following is None else str(following)})


@router.post("", status_code=201, response_model=Revocation, openapi_extra=_BODY)
async def revoke(request: Request, context: InContext) -> Response:
    """Revoke a principal or a token for a time. Its streams are closed on all replicas within seconds."""
    require_permission_everywhere(request, Action.ADMIN)
    new = await read_model(request, NewRevocation)
    note(request.scope, f"{new.claim}:{new.value}", f"for {new.for_s:g} s")
    return answer(_described(await revoke_claim(context.store, new.claim, new.value, new.for_s)), 201)


@router.delete("", status_code=204, responses=_NONE)
async def restore(request: Request, context: InContext, claim: Claim, value: Label) -> Response:
    """Withdraw a revocation. The principal or token is accepted again on all replicas within seconds."""
    note(request.scope, f"{claim}:{value}")
    require_permission_everywhere(request, Action.ADMIN)
    if not await restore_claim(context.store, claim, value):
        raise NotFound(
            f"{claim} {value!r} is not revoked: it never was, or the revocation expired or was already withdrawn"
        )
    return Response(status_code=204)


def _described(denial: RevokedClaim) -> dict[str, Any]:
    until = datetime.fromtimestamp(denial.until, UTC)
    return Revocation(claim=denial.claim, value=denial.value, until=until).model_dump(mode="json")
