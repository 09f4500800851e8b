"""Access: the one place where a socket asks whether its client may do something to an operation."""

from starlette.requests import HTTPConnection

from progress_broker.model.grants import Action
from progress_broker.stream.delivery import ALL, Delivery
from progress_server.auth.authorization import permit
from progress_server.auth.guard import held
from progress_server.auth.principal import principal_of
from progress_server.context import context_of


def name_of(connection: HTTPConnection) -> str:
    """Return who calls; nobody in particular is ""."""
    return principal_of(connection).name


async def require(connection: HTTPConnection, action: Action, operation: str) -> None:
    """Raise `NotFound` or `Forbidden` unless the client may."""
    await permit(connection, context_of(connection), action, operation)


def deadline_of(connection: HTTPConnection) -> float:
    """Return when the client's proof of who they are ends, by the hub's clock."""
    return bounded(connection, ALL).deadline


def bounded(connection: HTTPConnection, delivery: Delivery) -> Delivery:
    """Return a delivery that ends with the client's proof of who they are."""
    return held(delivery, principal_of(connection), context_of(connection).hub)
