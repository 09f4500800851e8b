"""Authorization: what a caller may do. Callers without read access get the same 404 as for an unknown id."""

from starlette.requests import HTTPConnection

from progress_broker.errors import Forbidden
from progress_broker.model.grants import Action
from progress_broker.model.operation import NewOperation
from progress_broker.operations.snapshot import attributes_of_new, missing
from progress_server.auth.principal import Principal, principal_of
from progress_server.context import Context

_VERBS = {
    Action.READ: "read",
    Action.PUBLISH: "publish to",
    Action.CANCEL: "cancel or signal",
    Action.CREATE: "create",
    Action.ADMIN: "delete",
}


async def require_permission(connection: HTTPConnection, context: Context, action: Action, operation: str) -> None:
    """Return if the caller may do an action on an operation. If the grants allow it by the id alone, the operation need
    not exist.

    Raises `NotFound`, after the same work and with the same text, for an operation that the caller may not read and
    for one that does not exist; `Forbidden` for one that the caller may read.
    """
    await require_permission_of(principal_of(connection), context, action, operation)


async def require_permission_of(principal: Principal, context: Context, action: Action, operation: str) -> None:
    """Do the same as `require_permission`, for a principal."""
    grants = principal.grants
    decided = grants.decide_by_id(action, operation)
    if decided:
        return
    if decided is None or grants.decide_by_id(Action.READ, operation) is not False:
        facts = await context.facts.get(operation, lambda facts: grants.allows(action, facts))
        if facts is not None:
            if grants.allows(action, facts):
                return
            if grants.allows(Action.READ, facts):
                raise forbidden(action, operation)
    raise missing(operation)


def require_permission_everywhere(connection: HTTPConnection, action: Action) -> None:
    """Return if the caller may do an action on all operations; else raise `Forbidden`."""
    if not principal_of(connection).grants.allows_everywhere(action):
        raise Forbidden(
            f"this request needs a grant of the action {action} on all operations; your credentials have no such grant"
        )


async def require_creation(connection: HTTPConnection, context: Context, new: NewOperation) -> NewOperation:
    """Return the operation to create, with the caller as its owner unless it names another; raise `Forbidden`.

    A parent shows the progress of its children, so the caller must be allowed to publish to it.
    """
    principal = principal_of(connection)
    if new.owner is None and principal.name:
        new = new.model_copy(update={"owner": principal.name})
    if not principal.grants.allows(Action.CREATE, attributes_of_new(new)):
        what = f"operation {new.id}" if new.id else "an operation"
        raise Forbidden(f"your grants do not allow you to create {what} with this owner, kind, tags and metadata")
    if new.parent is not None:
        await require_permission_of(principal, context, Action.PUBLISH, new.parent)
    return new


def forbidden(action: Action, operation: str) -> Forbidden:
    """Return the error for a caller that may read an operation, but not do this to it."""
    return Forbidden(
        f"you may not {_VERBS[action]} operation {operation}: your credentials have no grant of the action"
        f" {action} on it"
    )
