"""Operations for the handlers of an app. Only `ticket` checks permissions: the app decides what its callers may do."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypedDict, Unpack

from fastapi import FastAPI

from progress_broker.errors import InvalidInput
from progress_broker.model.entry import encode
from progress_broker.model.grants import Action
from progress_broker.model.metadata import terms
from progress_broker.model.operation import NewOperation, Operation, PublishResult, Status
from progress_broker.model.validation import check_arguments, texts, validated
from progress_broker.queries.filters import Filters
from progress_broker.queries.page import find_page
from progress_server.auth.authorization import require_permission_of
from progress_server.auth.guard import Guard
from progress_server.auth.principal import Principal
from progress_server.context import Context
from progress_server.middleware.startup import not_started
from progress_server.routes.publish import publish_counted
from progress_server.routes.tickets import Ticket


class OperationFields(TypedDict, total=False):
    """The fields of a new operation, as in `POST /v1/operations`."""

    id: str | None
    kind: str
    title: str | None
    owner: str | None
    tags: list[str]
    metadata: dict[str, Any]
    parent: str | None
    weight: float
    lease_s: float | None
    retention_s: float | None
    history_length: int | None


class Page(NamedTuple):
    """A page of operations, most recently changed first, and the cursor of the next page; None at the end."""

    operations: list[Operation]
    next_cursor: str | None


class Operations:
    """Creates, reads, cancels and publishes.

    Every method raises `StorageUnavailable` while Redis is unavailable or the server does not run, and `NotFound` or
    `Gone` if there is no such operation.
    """

    def __init__(self, app: Callable[[], FastAPI]) -> None:
        self._app = app

    async def create(self, **fields: Unpack[OperationFields]) -> Operation:
        """Create an operation, and return it. The same call again returns the same operation.

        Raises `InvalidInput`, or `OperationExists` if the id was used with other fields.
        """
        operation, _ = await self._context.store.create(validated(NewOperation, fields))
        return operation

    async def get(self, operation: str) -> Operation:
        """Return an operation's state."""
        check_arguments(operation=operation)
        return await self._context.store.get(operation)

    async def list(
        self,
        *,
        status: Sequence[str] | str = (),
        owner: str | None = None,
        kind: str | None = None,
        tag: Sequence[str] | str = (),
        parent: str | None = None,
        metadata: Mapping[str, str | float | bool] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Return a page of the operations that match: one of the statuses, all tags, and all values of metadata.

        A page may be short and still have a `next_cursor`. Raises `InvalidInput`.
        """
        check_arguments(owner=owner, kind=kind, parent=parent, metadata=metadata, limit=limit, cursor=cursor)
        try:
            statuses = frozenset(Status(it) for it in texts("status", status))
        except ValueError as error:
            raise InvalidInput(f"{error}: the statuses are {', '.join(Status)}", field="status") from None
        try:
            values = tuple(term for key, value in (metadata or {}).items() for term in terms(key, [value]))
        except ValueError as error:
            raise InvalidInput(str(error), field="metadata") from None
        filters = Filters(
            statuses=statuses,
            owners=texts("owner", owner),
            kinds=texts("kind", kind),
            tags=texts("tag", tag),
            parent=parent,
            metadata=values,
        )
        operations, next_cursor, _ = await find_page(self._context.store, filters, limit=limit, cursor=cursor)
        return Page(operations, next_cursor)

    async def cancel(
        self, operation: str, reason: str | None = None, *, by: str | None = None, force: bool = False
    ) -> Operation:
        """Ask the worker of an operation to stop, or with `force` end it now; return the operation.

        Raises `InvalidInput` if the reason has more than 1,024 characters.
        """
        check_arguments(operation=operation, reason=reason, by=by, force=force)
        changed, _ = await self._context.store.cancel(operation, reason=reason, by=by, force=force)
        return changed

    async def publish(self, operation: str, type: str, data: Any = None) -> PublishResult:
        """Publish an event. Raises `InvalidInput`, `TooLarge` or `OperationEnded`."""
        check_arguments(operation=operation, type=type)
        context = self._context
        return await publish_counted(context, operation, [encode(type, data, context.settings)])

    async def ticket(self, operation: str, principal: Principal | str) -> Ticket:
        """Return a ticket that opens an operation's stream once, within a minute: `?ticket=` in its URL.

        Raises `NotFound` if the principal may not read the operation. A principal given by its name may read what it
        owns.
        """
        check_arguments(operation=operation)
        if not isinstance(principal, Principal | str):
            raise InvalidInput("principal: expected a `Principal`, or its name", field="principal")
        caller = principal if isinstance(principal, Principal) else Principal(principal)
        await require_permission_of(caller, self._context, Action.READ, operation)
        guard: Guard = self._app().state.guard
        ticket, expires_at = await guard.tickets.for_operation(caller, operation)
        return Ticket(ticket=ticket, expires_at=datetime.fromtimestamp(expires_at, UTC))

    @property
    def _context(self) -> Context:
        app = self._app()
        context: Context | None = getattr(app.state, "context", None)
        if context is None:
            raise not_started({"app": app})
        return context
