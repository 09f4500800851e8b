"""Authorization: may who calls do that? What they may not even read looks like what there is not."""

from starlette.requests import HTTPConnection

from progress_broker.errors import Forbidden
from progress_broker.model.grants import Action, Facts
from progress_broker.model.operation import NewOperation
from progress_broker.operations.snapshot import missing
from progress_server.auth.principal import Principal, principal_of
from progress_server.context import Context

_DONE = {
    Action.READ: "be read",
    Action.PUBLISH: "be published to",
    Action.CANCEL: "be cancelled or signalled",
    Action.CREATE: "be created",
    Action.ADMIN: "be deleted",
}


async def permit(connection: HTTPConnection, context: Context, action: Action, operation: str) -> None:
    """Return if who calls may do this to an operation, which need not exist if their grants don't look at it.

    Raises `NotFound`, after the same work and with the same words, for an operation that they may not read and for one
    that does not exist; `Forbidden` for one that they may read.
    """
    await permit_principal(principal_of(connection), context, action, operation)


async def permit_principal(principal: Principal, context: Context, action: Action, operation: str) -> None:
    """Do what `permit` does, for a principal."""
    grants = principal.grants
    decided = grants.decides(action, operation)
    if decided:
        return
    if decided is None or grants.decides(Action.READ, operation) is not False:
        facts = await context.facts.of(operation, lambda facts: grants.allows(action, facts))
        if facts is not None:
            if grants.allows(action, facts):
                return
            if grants.allows(Action.READ, facts):
                raise refused(action, operation)
    raise missing(operation)


def permit_everywhere(connection: HTTPConnection, action: Action) -> None:
    """Return if who calls may do this to all there is; raise `Forbidden`."""
    if not principal_of(connection).grants.allows_everywhere(action):
        raise Forbidden(f"that takes a grant of the action {action} on all operations")


async def permit_creation(connection: HTTPConnection, context: Context, new: NewOperation) -> NewOperation:
    """Return the operation as who calls may create it: theirs, unless it names another owner.

    A parent is told of its children and shows what they add up to, so to name one takes the grant to publish to it.
    """
    principal = principal_of(connection)
    if new.owner is None and principal.name:
        new = new.model_copy(update={"owner": principal.name})
    if not principal.grants.allows(Action.CREATE, Facts(new.id or "", new.owner, new.kind, new.tags)):
        what = f"operation {new.id}" if new.id else "an operation"
        raise Forbidden(f"your grants don't let you create {what} of this owner, kind and tags")
    if new.parent is not None:
        await permit_principal(principal, context, Action.PUBLISH, new.parent)
    return new


def refused(action: Action, operation: str) -> Forbidden:
    """Return what is said to who may read an operation, but not do that."""
    return Forbidden(f"operation {operation} may not {_DONE[action]} by you: it takes a grant of the action {action}")
