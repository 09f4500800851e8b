"""The calls that act on many operations, and the one that says how long an operation is kept."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.responses import Response

from progress_broker.bulk import selection, verbs
from progress_broker.bulk.verbs import Verb
from progress_broker.errors import InvalidInput
from progress_broker.model.grants import Action
from progress_broker.model.operation import MAX_RETENTION_S, NewSignal, Operation, OperationId
from progress_broker.operations import retention
from progress_broker.operations.retention import PINNED, Keep
from progress_broker.queries.fields import FIELDS, Pairs
from progress_server.auth.authorization import require_permission
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext
from progress_server.http.answers import answer
from progress_server.http.bodies import read_model
from progress_server.http.cancellation import CancelRequest
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note
from progress_server.routes.operators.query import filters_of

router = APIRouter(tags=["operations"], route_class=CheckedRoute)

MOST_IDS = 1_000
MOST = 100_000
"""How many operations one request acts on, unless it says another number."""

_Handler = Callable[[Request, InContext], Awaitable[Response]]

QueryValue = str | list[str] | bool | int


class Chosen(BaseModel):
    """Which operations to act on: those with these ids, or those that a query chooses."""

    model_config = ConfigDict(extra="forbid")

    ids: Annotated[list[OperationId], Field(min_length=1, max_length=MOST_IDS)] | None = None
    query: Annotated[dict[str, QueryValue], Field(min_length=1)] | None = Field(
        None, description="The parameters of a list: a value, or a list of values."
    )
    dry_run: StrictBool = Field(False, description="Only say how many there are, and name some.")
    max: int = Field(MOST, ge=1, le=10_000_000, description="Reject the request if there are more operations.")


class CancelMany(Chosen, CancelRequest):
    """What to cancel, and why."""


class SignalMany(Chosen, NewSignal):
    """What to signal, and how."""


class Retention(BaseModel):
    """How long an operation is kept."""

    model_config = ConfigDict(extra="forbid")

    retention_s: Annotated[float, Field(gt=0, le=MAX_RETENTION_S, strict=True)] | None = Field(
        None, description="After its end; null: as the retention of all, or its creator, said."
    )
    pinned: StrictBool = Field(False, description="For as long as can be: ten years.")


class Selected(BaseModel):
    """What a request would act on."""

    number: int
    samples: list[str]
    lanes_away: list[int] = Field([], description="The lanes that could not be reached; left out if there are none.")


def _body(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "With `dry_run`, or if there is nothing to act on: what it would act on.", "model": Selected}
}


def _on_many(verb: str, model: type[Chosen]) -> Callable[[_Handler], _Handler]:
    """Return the decorator of a call that acts on many operations."""
    return router.post(
        f"/v1/operations:{verb}",
        status_code=202,
        response_model=Operation,
        responses=_RESPONSES,
        openapi_extra=_body(model),
    )


@_on_many("cancel", CancelMany)
async def cancel_many(request: Request, context: InContext) -> Response:
    """Ask the workers of many operations to stop. The response is an operation that shows how far this is."""
    asked = await read_model(request, CancelMany)
    by = principal_of(request).name or asked.by
    verb = verbs.cancel(context.store, reason=asked.reason, by=by, force=asked.force)
    return await _act(request, context, verb, asked)


@_on_many("signal", SignalMany)
async def signal_many(request: Request, context: InContext) -> Response:
    """Send a signal to the workers of many operations. The response is an operation that shows how far this is."""
    asked = await read_model(request, SignalMany)
    sent = NewSignal(type=asked.type, data=asked.data)
    return await _act(request, context, verbs.signal(context.store, sent, by=principal_of(request).name or None), asked)


@_on_many("purge", Chosen)
async def purge(request: Request, context: InContext) -> Response:
    """Delete many operations that have ended. The response is an operation that shows how far this is."""
    return await _act(request, context, verbs.delete(context.store), await read_model(request, Chosen))


@router.patch("/v1/operations/{id}", response_model=Operation, openapi_extra=_body(Retention))
async def retain(operation: Id, request: Request, context: InContext) -> Response:
    """Say how long an operation is kept. It counts more than the retention of all and what its creator said."""
    await require_permission(request, context, Action.ADMIN, operation)
    asked = await read_model(request, Retention)
    if asked.pinned and asked.retention_s is not None:
        raise InvalidInput("an operation is pinned, or kept for a time: leave out one of them", field="pinned")
    if not asked.model_fields_set:
        raise InvalidInput("say how long: retention_s, which may be null, or pinned", field="retention_s")
    keep = PINNED if asked.pinned else None if asked.retention_s is None else Keep(asked.retention_s)
    await retention.keep(context.store, operation, keep)
    note(request.scope, operation, "pinned" if asked.pinned else f"retention_s={asked.retention_s}")
    return answer(await context.store.get(operation))


async def _act(request: Request, context: Context, verb: Verb, asked: Chosen) -> Response:
    """Begin to act on the operations of a request that the caller may act on; with `dry_run` only look at them."""
    query = _pairs(asked)
    filters = await filters_of(context.store, query)
    note(request.scope, "&".join(f"{name}={text}" for name, text in query), "dry run" if asked.dry_run else "")
    grants = principal_of(request).grants
    chosen = selection.filters_for(verb, filters).of_caller(grants)
    selected = await selection.select(context.store, chosen, asked.max)
    if selected.number > asked.max:
        raise InvalidInput(
            f"more than {asked.max} operations match: choose fewer, or allow more with `max`", field="max"
        )
    if asked.dry_run or not selected.number:
        body: dict[str, Any] = {"number": selected.number, "samples": selected.samples}
        return answer(body | ({"lanes_away": selected.lanes_away} if selected.lanes_away else {}))
    away: set[int] = set()
    groups: AsyncIterator[Sequence[str]] = selection.found(context.store, chosen, away)
    owner = principal_of(request).name
    job = await context.jobs.start(verb, groups, number=selected.number, owner=owner, away=away)
    return answer(job, 202, {"Location": f"/v1/operations/{job.id}"})


def _pairs(asked: Chosen) -> Pairs:
    """Return the query of a request; raise `InvalidInput`."""
    if (asked.ids is None) is (asked.query is None):
        raise InvalidInput("give either `ids` or `query`", field="ids")
    if asked.ids is not None:
        return tuple(("id", id) for id in asked.ids)
    pairs: list[tuple[str, str]] = []
    for name, value in (asked.query or {}).items():
        if name not in FIELDS:
            raise InvalidInput(f"unknown filter {name[:100]!r}: the filters are {', '.join(FIELDS)}", field=name)
        values = value if isinstance(value, list) else [value]
        pairs += [(name, str(it).lower() if isinstance(it, bool) else str(it)) for it in values]
    return tuple(pairs)
