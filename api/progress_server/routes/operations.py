"""The calls on operations as resources: create, list, get, delete, cancel, signal."""

from hashlib import blake2s
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from progress_broker.errors import OperationExists
from progress_broker.model.grants import Action
from progress_broker.model.operation import Children, NewOperation, NewSignal, Operation
from progress_broker.operations.snapshot import attributes_of
from progress_broker.queries.brief import BriefOperation, brief
from progress_broker.queries.choice import Order
from progress_broker.queries.fields import Pairs
from progress_broker.queries.page import find_page
from progress_server.auth.authorization import require_creation, require_permission
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext
from progress_server.http.answers import answer, answer_if_changed, has_current
from progress_server.http.bodies import read_model
from progress_server.http.cancellation import CancelRequest
from progress_server.http.openapi import Responses, rejections
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note
from progress_server.routes.operators.query import filters_of, with_filters

router = APIRouter(prefix="/v1/operations", tags=["operations"], route_class=CheckedRoute)

NOT_MODIFIED: Responses = {304: {"description": "Not modified: the client's copy (`If-None-Match`) is current."}}

POLL_S = 2
"""Poll interval suggested to clients while an operation is not done (`Retry-After`)."""


class Listing(BaseModel):
    """A page of operations, the newest first."""

    operations: list[Operation] | list[BriefOperation]
    next_cursor: str | None
    partial: bool = Field(
        False, description="Whether operations are missing, because a part of Redis can't be reached; left out if not."
    )
    lanes_away: list[int] = Field([], description="The lanes that have them; left out if there are none.")


def _body_of(model: type[BaseModel], *, required: bool) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": content, "required": required}}


@router.post(
    "",
    status_code=201,
    response_model=Operation,
    openapi_extra=_body_of(NewOperation, required=False),
    responses=rejections("operation-exists", "gone"),
)
async def create(request: Request, context: InContext) -> Response:
    """Create an operation. Repeating the call with the same id and the same body succeeds and changes nothing."""
    new = await read_model(request, NewOperation, required=False)
    note(request.scope, new.id or "")
    operation, made = await context.store.create(await require_creation(request, context, new))
    note(request.scope, operation.id, "" if made else "it existed already")
    if not made and not principal_of(request).grants.allows(Action.READ, attributes_of(operation)):
        raise OperationExists(f"operation {operation.id} already exists")  # the caller may not read its state
    location = f"{_public_url(request, context)}{router.prefix}/{operation.id}"
    headers = {"Location": location, "Operation-Location": location}
    return answer(operation, 201, headers | _poll_delay(operation))


@router.get("", response_model=Listing, responses=NOT_MODIFIED)
@with_filters
async def listing(
    request: Request,
    context: InContext,
    query: Pairs,
    sort: Annotated[Order, Query(description="By last change, creation or end: the newest first.")] = Order.CHANGED,
    fields: Annotated[Literal["brief"] | None, Query(description="`brief` returns only what a list shows.")] = None,
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of operations.")] = 50,
    cursor: Annotated[str | None, Query(max_length=512, description="`next_cursor` of the previous page.")] = None,
) -> Response:
    """List operations, the newest first.

    A page may hold fewer than `limit` operations and still not be the last: follow `next_cursor` until it is null.
    """
    filters = (await filters_of(context.store, query)).of_caller(principal_of(request).grants)
    # The cursor of a caller that may not read all is encrypted: it can contain the id and the time of an operation that
    # the caller may not read.
    seal = None if filters.grants is None else await guard_of(request).cursor_cipher()
    place = cursor if seal is None else seal.decrypt(cursor)
    page = await find_page(context.store, filters, order=sort, limit=limit, cursor=place)
    shown = [brief(operation) if fields == "brief" else operation for operation in page.operations]
    body: dict[str, Any] = {"operations": [it.model_dump(mode="json") for it in shown]}
    if page.lanes_away:
        body |= {"partial": True, "lanes_away": page.lanes_away}
    # Each encryption gives another text; an earlier one of the same page is as good.
    same_as = body | {"next_cursor": page.next_cursor if seal is None else page.next_cursor is not None}
    next_cursor = page.next_cursor if seal is None else seal.encrypt(page.next_cursor)
    return answer_if_changed(request.headers, body | {"next_cursor": next_cursor}, same_as)


@router.get("/{id}", response_model=Operation, responses=NOT_MODIFIED)
async def get(
    operation: Id,
    request: Request,
    context: InContext,
    include: Annotated[
        Literal["children"] | None, Query(description="`children` also lists its first children.")
    ] = None,
) -> Response:
    """Get an operation. While it is not done, `Retry-After` says when to poll again."""
    await require_permission(request, context, Action.READ, operation)
    now = await context.store.get(operation, list_children=include is not None)
    if isinstance(now.children, Children):
        grants = principal_of(request).grants
        now.children.operations = [
            it for it in now.children.operations if grants.allows(Action.READ, attributes_of(it))
        ]
    headers = {"ETag": f'"{_tag(now)}"', "Cache-Control": "private, no-cache"}
    headers |= _poll_delay(now)
    if has_current(request.headers, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return answer(now, headers=headers)


def _public_url(request: Request, context: Context) -> str:
    """Return the URL under which the caller reaches this API. Pollers follow `Operation-Location` only if absolute."""
    if context.settings.public_url:
        return context.settings.public_url
    # Not `request.base_url`: inside another app that is the URL of the other app.
    return str(request.url.replace(path=request.scope.get("root_path", ""), query="", fragment="")).rstrip("/")


def _poll_delay(now: Operation) -> dict[str, str]:
    return {} if now.done else {"Retry-After": str(POLL_S)}


def _tag(now: Operation) -> str:
    """Return a tag that changes whenever the response changes. For a parent that includes changes of its children."""
    if now.children is None:
        return now.position
    return f"{now.position}.{blake2s(now.children.model_dump_json().encode(), digest_size=8).hexdigest()}"


@router.delete("/{id}", status_code=204, responses=rejections("operation-running"))
async def delete(operation: Id, request: Request, context: InContext, force: bool = False) -> Response:
    """Delete an operation that has ended; with `force`, any operation. Its id then returns `gone` for a while."""
    note(request.scope, operation, "by force" if force else "")
    await require_permission(request, context, Action.ADMIN, operation)
    await context.store.delete(operation, force=force)
    return Response(status_code=204)


@router.post(
    "/{id}/cancel",
    status_code=202,
    response_model=Operation,
    openapi_extra=_body_of(CancelRequest, required=False),
    responses={200: {"description": "The operation had already ended and is unchanged.", "model": Operation}},
)
async def cancel(operation: Id, request: Request, context: InContext) -> Response:
    """Ask the worker of an operation, and the workers of its children, to stop.

    An operation that no worker has started ends immediately.
    """
    await require_permission(request, context, Action.CANCEL, operation)
    request_body = await read_model(request, CancelRequest, required=False)
    note(request.scope, operation, request_body.described())
    by = principal_of(request).name or request_body.by
    now, changed = await context.store.cancel(operation, reason=request_body.reason, by=by, force=request_body.force)
    return answer(now, 202 if changed or not now.done else 200)


@router.post(
    "/{id}/signals",
    status_code=202,
    response_class=Response,
    openapi_extra=_body_of(NewSignal, required=True),
    responses=rejections("operation-ended"),
)
async def signal(operation: Id, request: Request, context: InContext) -> Response:
    """Send a signal, such as `pause`, to the worker of an operation. The worker decides how to react."""
    await require_permission(request, context, Action.CANCEL, operation)
    sent = await read_model(request, NewSignal)
    note(request.scope, operation, sent.type)
    await context.store.signal(operation, sent, by=principal_of(request).name or None)
    return Response(status_code=202)
