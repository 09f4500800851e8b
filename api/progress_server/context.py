"""What a request needs of the process it runs in, and what requests have in common."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Path, Request
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection

from progress_broker.access.fact_cache import FactCache
from progress_broker.errors import RequestTimeout, TooLarge
from progress_broker.hub import Hub
from progress_broker.model.operation import OPERATION_ID
from progress_broker.model.validation import invalid, read_json
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_server.auth.guard import Guard

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Context:
    """The store and the hub of a running app, and what it tells of itself."""

    settings: Settings
    store: Store
    hub: Hub
    metrics: CollectorRegistry
    guard: Guard
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


SLOWEST_BYTES_PER_S = 16_384
"""A body may take the request's timeout, and longer only as far as it keeps this pace."""


async def read_body(request: Request, limit: int) -> bytes:
    """Return the request's body. Raise `TooLarge` as soon as it is known to be longer than `limit` bytes, and
    `RequestTimeout` if it comes too slowly."""
    said = request.headers.get("content-length", "")
    if said.isascii() and said.isdigit() and int(said[:20]) > limit:
        raise TooLarge(f"the body is over {limit} bytes")
    timeout_s = context_of(request).settings.request_timeout_s
    latest = asyncio.get_running_loop().time() + timeout_s
    body = bytearray()
    try:
        async with asyncio.timeout_at(latest) as patience:
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise TooLarge(f"the body is over {limit} bytes")
                patience.reschedule(latest + len(body) / SLOWEST_BYTES_PER_S)
    except TimeoutError:
        raise RequestTimeout(f"the body came too slowly: {len(body)} bytes so far") from None
    return bytes(body)


async def read_model(request: Request, model: type[M], *, required: bool = True) -> M:
    """Return what a request's JSON body says, which may be empty if not required; raise `Invalid` or `TooLarge`."""
    body = await read_body(request, context_of(request).settings.max_body_bytes)
    try:
        return model.model_validate({} if not required and not body.strip() else read_json(body))
    except ValidationError as error:
        raise invalid(error) from None
