"""What a request needs of the process it runs in, and what requests have in common."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from progress_broker.access.fact_cache import FactCache
from progress_broker.hub import Hub
from progress_broker.model.operation import OPERATION_ID
from progress_broker.operations.store import Store
from progress_broker.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """The store and the hub of a running app, and what it tells of itself."""

    settings: Settings
    store: Store
    hub: Hub
    metrics: CollectorRegistry
    facts: FactCache

    @property
    def takes_other_names(self) -> bool:
        """Whether the query of a connection to be opened may hold names that are not ours, for a back end to read."""
        return self.settings.auth == "callback"


def context_of(connection: HTTPConnection) -> Context:
    """Return what the process of a request, or of a WebSocket, has."""
    context: Context = connection.app.state.context
    return context


async def _context(request: Request) -> Context:  # async, or each request would visit a thread
    return context_of(request)


InContext = Annotated[Context, Depends(_context)]
Id = Annotated[str, Path(alias="id", pattern=f"^{OPERATION_ID}$", description="the operation's id")]
