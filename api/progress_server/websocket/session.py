"""The requests of one client over its WebSocket. They are handled in order, each with a response."""

import asyncio
import logging
from dataclasses import replace

from starlette.websockets import WebSocket

from progress_broker.access.audit import AuditEntry
from progress_broker.errors import BrokerError, Ended, InvalidInput, TooLarge
from progress_broker.model.grants import Action
from progress_broker.stream.delivery import Start
from progress_server.auth.authorization import require_permission
from progress_server.auth.principal import principal_of
from progress_server.auth.revocation import bind_to_principal
from progress_server.context import Context
from progress_server.http.rejections import POLICY_VIOLATION, close_code, problem_message
from progress_server.limits.admission import DebtBucket
from progress_server.sse.query import StreamQuery
from progress_server.websocket.messages import (
    CancelMessage,
    Ping,
    Ref,
    Request,
    Subscribe,
    message,
    named_in,
    read_request,
)
from progress_server.websocket.socket import Socket

log = logging.getLogger(__name__)

FAULTS = 20
"""Invalid messages that a client may send at once, plus one more every six seconds. Then the WebSocket is closed."""
_FAULTS_PER_S = 1 / 6


class Session:
    """Handles the requests of one client. `only` is the operation of a WebSocket that follows just one."""

    def __init__(self, socket: Socket, websocket: WebSocket, context: Context, only: str | None = None) -> None:
        settings = context.settings
        self._socket, self._websocket, self._context = socket, websocket, context
        self._only = only
        # The burst lets a client subscribe to the maximum of operations at once. Beyond it, messages are delayed.
        self._messages = DebtBucket(settings.messages_per_s, settings.max_operations_per_stream)
        self._faults = DebtBucket(_FAULTS_PER_S, FAULTS)

    async def listen(self) -> None:
        """Handle each message until the client disconnects."""
        while (received := await self._socket.receive()) is not None:
            await asyncio.sleep(self._messages.take())
            if not self._socket.closing:
                await self.handle(received if isinstance(received, str) else None)

    async def follow(self, operation: str, query: StreamQuery, start: Start) -> None:
        """Follow the only operation. If that fails, close the WebSocket."""
        try:
            await self._subscribe(operation, query, start)
        except BrokerError as error:
            self._context.hub.tally.problems[error.code] += 1
            self._reject(error, operation)
            self._socket.finish(close_code(error.code), error.code)

    async def handle(self, text: str | None) -> None:
        """Handle one message of the client; reply with a problem if it is invalid."""
        try:
            request = read_request(text)
        except (InvalidInput, TooLarge) as error:
            self._reject(error, *named_in(text))
            if self._faults.take():
                self._socket.finish(POLICY_VIOLATION, "too many invalid messages")
            return
        operation = None if isinstance(request, Ping) else request.operation or self._only
        try:
            await self._handle_request(request, operation)
        except BrokerError as error:
            self._reject(error, operation, request.ref)

    async def _handle_request(self, request: Request, operation: str | None) -> None:
        socket = self._socket
        if isinstance(request, Ping):
            socket.send_text(message("pong", ref=request.ref))
        elif operation is None:
            raise InvalidInput("`operation` is missing; set it to the operation's id", field="operation")
        elif isinstance(request, CancelMessage):
            await self._cancel(request, operation)
        elif self._only is not None:
            raise InvalidInput("this WebSocket follows only one operation; connect to /v1/ws to follow others")
        elif isinstance(request, Subscribe):
            query = request.query()
            await self._subscribe(operation, query, query.start(None), request.ref)
        elif socket.detach(operation):
            socket.send_text(message("unsubscribed", operation=operation, reason="client", ref=request.ref))
        else:
            raise InvalidInput(f"this WebSocket does not follow operation {operation}", field="operation")

    async def _subscribe(self, operation: str, query: StreamQuery, start: Start, ref: Ref = None) -> None:
        socket, hub, settings = self._socket, self._context.hub, self._context.settings
        try:
            await require_permission(self._websocket, self._context, Action.READ, operation)
            if len(socket) >= settings.max_operations_per_stream and operation not in socket:
                limit = settings.max_operations_per_stream
                raise InvalidInput(
                    f"a WebSocket follows at most {limit} operations (PROGRESS_MAX_OPERATIONS_PER_STREAM);"
                    " open another for more",
                    field="operation",
                )
            delivery = replace(query.delivery(), connection=socket.connection)
            subscription = await hub.subscribe(
                operation, start, bind_to_principal(delivery, socket.holder, hub), await_creation=query.wait_s > 0
            )
        except Ended:
            socket.detach(operation)
            socket.unsubscribed(operation, "ended", ref)
            return
        except BrokerError as error:
            hub.tally.rejected[error.code] += 1
            raise
        if socket.closing:  # it may have been closed during the `await`
            subscription.close("client")
            return
        if self._only is None:
            socket.send_text(message("subscribed", operation=operation, ref=ref))
        socket.attach(subscription)
        if query.wait_s > 0:
            asyncio.get_running_loop().call_later(
                min(query.wait_s, settings.max_long_poll_s), subscription.stop_awaiting
            )

    async def _cancel(self, request: CancelMessage, operation: str) -> None:
        who = principal_of(self._websocket).name
        entry = AuditEntry(who, "ws", "cancel", operation, address=self._socket.client, detail=request.described())
        try:
            await require_permission(self._websocket, self._context, Action.CANCEL, operation)
            by = who or request.by
            now, _ = await self._context.store.cancel(operation, reason=request.reason, by=by, force=request.force)
        except BrokerError as error:
            await self._context.audit.record(entry._replace(result=error.code))
            raise
        await self._context.audit.record(entry)
        self._socket.send_text(message("cancelled", operation=operation, status=now.status, ref=request.ref))

    def _reject(self, error: BrokerError, operation: str | None = None, ref: Ref = None) -> None:
        problem = problem_message(
            error.code, error.detail, field=error.field, retry_s=error.retry_s, operation=operation, ref=ref
        )
        self._socket.send_text(problem)
