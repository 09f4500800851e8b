"""The call that counts operations."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from progress_broker.model.operation import Status
from progress_broker.queries.counts import count
from progress_broker.queries.fields import Pairs
from progress_server.auth.principal import principal_of
from progress_server.context import InContext
from progress_server.http.answers import answer_if_changed
from progress_server.http.query_names import CheckedRoute
from progress_server.routes.operators.query import filters_of, with_filters

router = APIRouter(prefix="/v1/operations", tags=["operations"], route_class=CheckedRoute)


class CountsAnswer(BaseModel):
    """How many operations match."""

    counts: dict[Status, int] = Field(description="By status; 0 is left out.")
    total: int
    approximate: bool = Field(
        description="Whether the numbers are estimated. For a caller that may not read all operations they are then"
        " of those that changed last, so there are more."
    )
    partial: bool = Field(
        False, description="Whether operations are missing, because a part of Redis can't be reached; left out if not."
    )
    lanes_away: list[int] = Field([], description="The lanes that have them; left out if there are none.")


@router.get("/counts", response_model=CountsAnswer)
@with_filters
async def counts(request: Request, context: InContext, query: Pairs) -> Response:
    """Count operations by status, with the same parameters as a list.

    An operation that is named `counts` is found by `?id=counts` of the list.
    """
    filters = (await filters_of(context.store, query)).of_caller(principal_of(request).grants)
    found = await count(context.store, filters)
    numbers = {status.value: number for status, number in found.statuses.items()}
    body = {"counts": numbers, "total": found.total, "approximate": found.approximate}
    if found.lanes_away:
        body |= {"partial": True, "lanes_away": found.lanes_away}
    return answer_if_changed(request.headers, body)
