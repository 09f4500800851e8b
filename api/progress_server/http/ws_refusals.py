"""Refusals: as browsers hide a refused handshake's status, a WebSocket is opened, told why, and closed."""

from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from progress_server.http.ws_codes import close_code
from progress_server.websocket.messages import problem_message


async def refuse(
    websocket: WebSocket, code: str, detail: str, *, field: str | None = None, retry_s: float | None = None
) -> None:
    """Refuse a WebSocket that has not been accepted yet. Middleware makes one of `(scope, receive, send)`."""
    with suppress(WebSocketDisconnect, OSError):  # the latter where it left before it was accepted (ASGI, "send")
        await websocket.accept()
        await websocket.send_text(problem_message(code, detail, field=field, retry_s=retry_s))
        await websocket.close(close_code(code), code)
