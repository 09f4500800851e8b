"""An app of a user who uses types. mypy and pyright check it in their strictest modes; it never runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, assert_type

from fastapi import Depends, FastAPI, Request
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from progress_broker.settings import Settings
from progress_server import Operation, Principal, Progress, granted


async def current_user(request: Request) -> Principal | None:
    own = granted(["read", "cancel"], owners=["alice"])
    return Principal("alice", [own, granted(["read"], kinds=["import"])], expires_at=1.5)


async def of_connection(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


progress = Progress(authenticate=current_user)
app = FastAPI(lifespan=progress.lifespan)
app.mount("/progress", progress.app)

other = Progress(
    of_connection,
    settings=Settings(redis_url="redis://localhost", drain_s=5),
    csrf=True,
    hosts=True,
    cors=False,
    hsts=True,
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with other.lifespan(app):
        yield


plain = Starlette(routes=[Mount("/progress", other.app)], lifespan=lifespan)


async def theirs(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


around = progress.around(theirs, at="/progress")


@app.post("/imports")
async def start(user: Annotated[Principal, Depends(current_user)]) -> str:
    made = await progress.operations.create(kind="import", owner=user.name, tags=["eu"], metadata={"customer": 42})
    assert_type(made, Operation)
    found, cursor = await progress.operations.list(status=["running", "pending"], metadata={"customer": 42}, limit=5)
    assert_type(found, list[Operation])
    assert_type(cursor, str | None)
    assert_type(await progress.operations.get(made.id), Operation)
    await progress.operations.publish(made.id, "log", {"message": "queued"})
    await progress.operations.cancel(made.id, "not needed", by=user.name)
    ticket = await progress.operations.ticket(made.id, user)
    return ticket.ticket
