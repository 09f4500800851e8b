"""The AsyncAPI document: the channels on which events come, and the messages on each of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from progress_server.description.envelopes import CONTROL, CONTROL_OF_MANY, STREAMED, type_of
from progress_server.description.schemas import ref, schemas_of
from progress_server.description.websocket import MESSAGES
from progress_server.http.paths import STREAM_OF_MANY, STREAM_OF_ONE, WEBSOCKET_OF_MANY, WEBSOCKET_OF_ONE
from progress_server.sse.query import StreamQuery
from progress_server.websocket.messages import CancelMessage, Ping, Subscribe, Unsubscribe

Node = dict[str, Any]

_REQUESTS = (Subscribe, Unsubscribe, CancelMessage, Ping)
_REQUESTS_OF_ONE = (CancelMessage, Ping)
_HEADERS = {
    "type": "object",
    "properties": {"id": {"type": "string", "description": "The position; send it as `Last-Event-ID` to resume."}},
}
_ABOUT = "The streams of a progress broker. docs/protocol.md says what they promise; OpenAPI describes the calls."


def asyncapi() -> Node:
    """Return the document."""
    one, many = _events(CONTROL), _events(CONTROL_OF_MANY)
    wrapped = _wrapped_events()
    spoken = {it.__name__: _message(it) for it in (*MESSAGES, *_REQUESTS)}
    said = [*wrapped, *(it.__name__ for it in MESSAGES)]
    heard_of_one, heard = ([it.__name__ for it in requests] for requests in (_REQUESTS_OF_ONE, _REQUESTS))
    models: list[type[BaseModel]] = [*STREAMED, *CONTROL_OF_MANY.values(), *MESSAGES, *_REQUESTS]
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Progress broker", "version": "1", "description": _ABOUT},
        "defaultContentType": "application/json",
        "servers": {name: {"host": "127.0.0.1:8000", "protocol": name} for name in ("http", "ws")},
        "channels": {
            "stream": _channel(STREAM_OF_ONE, "http", "An operation, as server-sent events.", one),
            "streamOfMany": _channel(STREAM_OF_MANY, "http", "Many operations, as server-sent events.", many),
            "webSocket": _channel(WEBSOCKET_OF_ONE, "ws", "An operation, over a WebSocket.", [*said, *heard_of_one]),
            "webSocketOfMany": _channel(
                WEBSOCKET_OF_MANY, "ws", "The operations that the client asks for, over a WebSocket.", [*said, *heard]
            ),
        },
        "operations": {
            "tellByStream": _operation("send", "stream", one),
            "tellByStreamOfMany": _operation("send", "streamOfMany", many),
            "tellByWebSocket": _operation("send", "webSocket", said),
            "tellByWebSocketOfMany": _operation("send", "webSocketOfMany", said),
            "takeRequests": _operation("receive", "webSocket", heard_of_one),
            "takeRequestsOfMany": _operation("receive", "webSocketOfMany", heard),
        },
        "components": {"messages": one | many | wrapped | spoken, "schemas": schemas_of(models)},
    }


def _events(control: Mapping[str, type[BaseModel]]) -> dict[str, Node]:
    """Return server-sent events: those with an envelope, and these without one."""
    found = {it.__name__: _message(it, type_of(it)) | {"headers": _HEADERS} for it in STREAMED}
    return found | {f"{name}Of{model.__name__}": _message(model, name) for name, model in control.items()}


def _wrapped_events() -> dict[str, Node]:
    """Return the events as a WebSocket's messages."""
    found = {}
    for envelope in STREAMED:
        name = type_of(envelope)
        event = {"type": "string"} if name is None else {"const": name}
        fields = {"id": {"type": "string"}, "event": event, "data": ref(envelope.__name__)}
        payload = {"type": "object", "properties": fields, "required": ["event", "data"]}
        found[f"{envelope.__name__}Message"] = _message(envelope, name) | {"payload": payload}
    return found


def _message(model: type[BaseModel], name: str | None = None) -> Node:
    summary = (model.__doc__ or "").partition("\n")[0]
    return {"name": name or model.__name__, "summary": summary, "payload": ref(model.__name__)}


def _channel(address: str, server: str, about: str, messages: Iterable[str]) -> Node:
    channel: Node = {
        "address": address,
        "description": about,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
    }
    if "{id}" in address:
        channel["parameters"] = {"id": {"description": "The operation's id."}}
    if address == WEBSOCKET_OF_ONE:
        query = {"type": "object", "properties": StreamQuery.model_json_schema()["properties"]}
        channel["bindings"] = {"ws": {"method": "GET", "query": query, "bindingVersion": "0.1.0"}}
    return channel


def _operation(action: str, channel: str, messages: Iterable[str]) -> Node:
    found = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": found}
