"""The per-process objects that request handlers need, and the parameters that routes share."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Depends, Path, Request
from prometheus_client import CollectorRegistry
from starlette.requests import HTTPConnection

from progress_broker.access.audit import Audit
from progress_broker.access.fact_cache import AttributeCache
from progress_broker.bulk.job import Jobs
from progress_broker.hub import Hub
from progress_broker.model.operation import OPERATION_ID
from progress_broker.operations.store import Store
from progress_broker.settings import Settings

OUTER = "progress_broker.outer"
"""The key, in the scope of a request, of the scope as the app around the server passed it on."""


@dataclass(slots=True)
class LiveSettings:
    """What a reload changes, and middleware and metrics look up each time."""

    handshakes_per_s: float
    access_log: bool
    certificate_expires_at: float | None = None
    """In seconds since 1970; None without TLS."""

    def prepare(self, settings: Settings) -> Callable[[], None]:
        """Return what takes new settings."""

        def take() -> None:
            self.handshakes_per_s, self.access_log = settings.handshakes_per_s, settings.access_log

        return take


class LogLines(Protocol):
    """The newest lines of this server's log."""

    def follow(self, last: int, wait_s: float, *, on: bool = True) -> AsyncGenerator[dict[str, Any] | None]:
        """Yield the `last` lines and all that follow; None after `wait_s` without one."""


def live_settings(settings: Settings) -> LiveSettings:
    """Return what middleware looks up, from the settings that a server starts with."""
    return LiveSettings(settings.handshakes_per_s, settings.access_log)


@dataclass(frozen=True, slots=True)
class Context:
    """The store, the hub, the settings and the metrics of a running app."""

    settings: Settings
    store: Store
    hub: Hub
    metrics: CollectorRegistry
    facts: AttributeCache
    jobs: Jobs
    audit: Audit
    read_redis: Callable[[], Awaitable[None]]
    """Reads what Redis has, for the metrics."""
    log: "LogLines"
    app_decides: bool = False
    """Whether code of the app that this server is mounted in authenticates callers."""

    @property
    def takes_other_names(self) -> bool:
        """Whether a new connection may have unknown query parameters: the app or the back end of `callback` reads
        them."""
        return self.app_decides or self.settings.auth == "callback"


def context_of(connection: HTTPConnection) -> Context:
    """Return the context of the app that handles a request or a WebSocket."""
    context: Context = connection.app.state.context
    return context


async def _context(
    request: Request,
) -> Context:  # async: FastAPI would run a plain function in a thread for each request
    return context_of(request)


InContext = Annotated[Context, Depends(_context)]
Id = Annotated[str, Path(alias="id", pattern=f"^{OPERATION_ID}$", description="The operation's id.")]
