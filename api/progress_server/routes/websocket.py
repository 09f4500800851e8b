"""`GET /v1/operations/{id}/ws` and `GET /v1/ws`: the events of one operation, and of many, over a WebSocket."""

import re

from fastapi import APIRouter, WebSocket
from starlette.responses import Response

from progress_broker.errors import BrokerError, Forbidden, InvalidInput
from progress_broker.model.operation import OPERATION_ID
from progress_broker.settings import Settings
from progress_server.context import context_of
from progress_server.http.origins import may_connect
from progress_server.http.paths import WEBSOCKET_OF_MANY, WEBSOCKET_OF_ONE
from progress_server.http.problems import problem
from progress_server.http.query_names import values_of
from progress_server.http.rejections import reject_websocket
from progress_server.sse.query import read_query
from progress_server.websocket.session import Session
from progress_server.websocket.socket import Socket

router = APIRouter()


@router.websocket(WEBSOCKET_OF_ONE)
async def follow(websocket: WebSocket) -> None:
    """Follow one operation, with the same query parameters as a stream. The client can also cancel it."""
    context = context_of(websocket)
    operation: str = websocket.path_params["id"]
    try:
        _check_origin(websocket, context.settings)
        if re.fullmatch(OPERATION_ID, operation) is None:
            raise InvalidInput(f"the operation id is not valid: an id must match {OPERATION_ID}", field="id")
        query = read_query(websocket.scope["query_string"], others=context.takes_other_names)
        start = query.start(websocket.headers.get("last-event-id"))
    except BrokerError as error:
        context.hub.tally.rejected[error.code] += 1
        await reject_websocket(websocket, error)
        return
    socket = Socket(websocket, context, single=True)
    conversation = Session(socket, websocket, context, operation)

    async def listen() -> None:
        await conversation.follow(operation, query, start)
        await socket.opened()
        await conversation.listen()

    await socket.accept()
    await socket.run(listen)


@router.websocket(WEBSOCKET_OF_MANY)
async def run_session(websocket: WebSocket) -> None:
    """Follow any number of operations on request, and cancel them."""
    context = context_of(websocket)
    try:
        _check_origin(websocket, context.settings)
        values_of(websocket.scope["query_string"], (), others=context.takes_other_names)
    except BrokerError as error:
        context.hub.tally.rejected[error.code] += 1
        await reject_websocket(websocket, error)
        return
    socket = Socket(websocket, context, single=False)
    conversation = Session(socket, websocket, context)

    async def listen() -> None:
        await socket.opened()
        await conversation.listen()

    await socket.accept()
    await socket.run(listen)


@router.get(WEBSOCKET_OF_ONE, include_in_schema=False)
@router.get(WEBSOCKET_OF_MANY, include_in_schema=False)
async def no_websocket() -> Response:
    """Tell a client that sent an ordinary request what this path is for (RFC 9110, 15.5.22)."""
    answer = problem("upgrade-required", "this path serves WebSockets; connect with a WebSocket client")
    answer.headers.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    return answer


def _check_origin(websocket: WebSocket, settings: Settings) -> None:
    if not may_connect(websocket.headers, settings.cors_origins):
        raise Forbidden("pages of this origin may not connect; add the origin to PROGRESS_CORS_ORIGINS to allow it")
