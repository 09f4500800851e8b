"""The calls that revoke: whose proofs count no more, though they have not expired, and count again."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from progress_broker.access.deny_list import LONGEST_S, Claim, Denial, denials, deny, reinstate
from progress_broker.errors import NotFound
from progress_broker.model.grants import Action
from progress_broker.model.operation import Label, Time
from progress_server.auth.authorization import permit_everywhere
from progress_server.context import InContext
from progress_server.http.answers import answer
from progress_server.http.bodies import read_model
from progress_server.http.openapi import Responses, refused
from progress_server.http.query_names import CheckedRoute

router = APIRouter(prefix="/v1/revocations", tags=["revocations"], route_class=CheckedRoute)

_A_DAY_S = 86_400.0
_FURTHEST = 1_000_000


class NewRevocation(BaseModel):
    """What is to count no more: a principal (`sub`) with all that it comes with, or one token (`jti`)."""

    model_config = ConfigDict(extra="forbid")

    claim: Claim
    value: Label
    for_s: Annotated[float, Field(ge=1, le=LONGEST_S, strict=True)] = _A_DAY_S


class Revocation(BaseModel):
    """What counts no more, and until when."""

    claim: Claim
    value: str
    until: Time


class Revocations(BaseModel):
    """A page of them, those that last longest first."""

    revocations: list[Revocation]
    next_cursor: str | None


_BODY = {
    "requestBody": {"content": {"application/json": {"schema": NewRevocation.model_json_schema()}}, "required": True}
}
_NONE: Responses = {404: refused("not-found")[404] | {"description": "it is not revoked (`not-found`)"}}


@router.get("", response_model=Revocations)
async def revocations(
    request: Request,
    context: InContext,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    cursor: Annotated[int, Query(ge=0, le=_FURTHEST)] = 0,
) -> Response:
    """List what is revoked. A page may be short and still have a next one: follow `next_cursor`."""
    permit_everywhere(request, Action.ADMIN)
    page, following = await denials(context.store, cursor, limit)
    told = [_described(denial) for denial in page]
    return answer({"revocations": told, "next_cursor": None if following is None else str(following)})


@router.post("", status_code=201, response_model=Revocation, openapi_extra=_BODY)
async def revoke(request: Request, context: InContext) -> Response:
    """Revoke a principal or a token for a time. Its streams end within seconds, on all replicas."""
    permit_everywhere(request, Action.ADMIN)
    new = await read_model(request, NewRevocation)
    return answer(_described(await deny(context.store, new.claim, new.value, new.for_s)), 201)


@router.delete("", status_code=204, responses=_NONE)
async def take_back(request: Request, context: InContext, claim: Claim, value: Label) -> Response:
    """Take a revocation back: what it was of counts again within seconds, on all replicas."""
    permit_everywhere(request, Action.ADMIN)
    if not await reinstate(context.store, claim, value):
        raise NotFound(f"{claim} {value!r} is not revoked: it never was, was taken back, or its time has passed")
    return Response(status_code=204)


def _described(denial: Denial) -> dict[str, Any]:
    until = datetime.fromtimestamp(denial.until, UTC)
    return Revocation(claim=denial.claim, value=denial.value, until=until).model_dump(mode="json")
