"""The calls that issue tickets."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator
from starlette.responses import Response

from progress_broker.model.grants import Action, Grant, Grants, granted
from progress_broker.model.metadata import terms
from progress_broker.model.operation import Label, OperationId, Time
from progress_server.auth.authorization import require_permission
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import principal_of
from progress_server.context import Context, Id, InContext
from progress_server.http.answers import answer
from progress_server.http.bodies import read_model
from progress_server.http.query_names import CheckedRoute

router = APIRouter(prefix="/v1", tags=["tickets"], route_class=CheckedRoute)

MAX_OPERATIONS = 50
"""Maximum operations in one ticket: a ticket is part of a URL, and URLs are limited."""


class Ticket(BaseModel):
    """A ticket. Send it as `?ticket=…` to open a stream."""

    ticket: str
    expires_at: Time


class TicketQuery(BaseModel):
    """Filters for the operations of a stream. A filter that is omitted matches every operation."""

    model_config = ConfigDict(extra="forbid")

    owner: Label | None = None
    kind: Label | None = None
    tag: Label | None = None
    metadata: dict[str, Label] | None = None
    """Values of what operations were created with, by key; each has to match."""

    @field_validator("metadata")
    @classmethod
    def _searchable(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        for key, value in (metadata or {}).items():
            list(terms(key, [value]))
        return metadata or None

    def limit(self) -> Grant:
        """Return what limits grants to this query."""
        metadata = None if self.metadata is None else {key: [value] for key, value in self.metadata.items()}
        return granted(
            ["read"], owners=_only(self.owner), kinds=_only(self.kind), tags=_only(self.tag), metadata=metadata
        )


class NewTicket(BaseModel):
    """What the ticket gives access to: either operations by id, or a query."""

    model_config = ConfigDict(extra="forbid")

    operations: Annotated[list[OperationId], Field(min_length=1, max_length=MAX_OPERATIONS)] | None = None
    query: Annotated[TicketQuery, WithJsonSchema(TicketQuery.model_json_schema())] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> "NewTicket":
        if (self.operations is None) is (self.query is None):
            raise ValueError("pass exactly one of `operations` and `query`")
        return self

    def within(self, grants: Grants) -> Grants:
        """Return the grants of the ticket. The caller must have checked read access to operations named by id."""
        read, query = frozenset({Action.READ}), self.query
        if query is None:
            return Grants((Grant(read, ids=frozenset(self.operations or ())),))
        return grants.narrowed(query.limit())


_BODY = {"requestBody": {"content": {"application/json": {"schema": NewTicket.model_json_schema()}}, "required": True}}


@router.post("/operations/{id}/tickets", status_code=201, response_model=Ticket)
async def operation_ticket(operation: Id, request: Request, context: InContext) -> Response:
    """Issue a ticket for the stream, the history or the WebSocket of an operation.

    Open the connection within a minute: the ticket then expires.
    """
    await require_permission(request, context, Action.READ, operation)
    return _given(*await guard_of(request).tickets.for_operation(principal_of(request), operation))


@router.post("/tickets", status_code=201, response_model=Ticket, openapi_extra=_BODY)
async def ticket(request: Request, context: InContext) -> Response:
    """Issue a ticket for a stream or a WebSocket of many operations, either named by id or found by a query."""
    new = await read_model(request, NewTicket)
    await _permit_all(request, context, new.operations or [])
    principal = principal_of(request)
    return _given(*await guard_of(request).tickets.for_many(principal, new.within(principal.grants)))


async def _permit_all(request: Request, context: Context, operations: list[str]) -> None:
    for operation in operations:
        await require_permission(request, context, Action.READ, operation)


def _given(ticket: str, expires_at: float) -> Response:
    return answer(Ticket(ticket=ticket, expires_at=datetime.fromtimestamp(expires_at, UTC)), 201)


def _only(value: str | None) -> frozenset[str] | None:
    return None if value is None else frozenset({value})
