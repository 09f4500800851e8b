"""The OpenAPI document: what each route says of itself, and what applies to all of them."""

from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from progress_broker.settings import Settings
from progress_server.description.envelopes import CONTROL, CONTROL_OF_MANY, LOGGED, STREAMED
from progress_server.description.examples import EXAMPLES
from progress_server.description.schemas import one_of, ref, schemas_of, type_operation
from progress_server.http.openapi import rejections
from progress_server.http.paths import EVENTS, OPEN_PATHS, STREAM_OF_MANY, STREAM_OF_ONE
from progress_server.routes.worker_bodies import WorkerPublish

_ANYWHERE = ("misdirected", "uri-too-long", "head-too-large", "internal")
_UNDER_V1 = ("invalid", "unauthenticated", "forbidden", "rate-limited", "storage-unavailable")
_OF_ONE = ("not-found", "gone")
_CHANGING = ("too-large", "request-timeout", "storage-full")

_PROBLEM = {
    "type": "object",
    "description": "Why a request was rejected (RFC 9457).",
    "properties": {
        "type": {"type": "string", "description": "The error code. Codes are stable: clients can rely on them."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What happened, why, and what to do."},
        "field": {"type": "string", "description": "The part of the input that is invalid."},
    },
    "required": ["type", "title", "status", "detail"],
}

_SERVER_SENT_EVENT = {
    "type": "object",
    "description": "A server-sent event. Its `data` is JSON.",
    "properties": {
        "id": {"type": "string", "description": "The position; send it as `Last-Event-ID` to resume."},
        "event": {"type": "string"},
        "retry": {"type": "integer", "minimum": 0, "description": "Milliseconds."},
    },
    "required": ["event", "data"],
}
_HISTORY = {
    "type": "object",
    "description": "A page of an operation's log.",
    "properties": {
        "operation": {"type": "string"},
        "events": {"type": "array", "items": ref("Event")},
        "position": {"type": "string", "description": "Continue with `after` = this."},
        "done": {"type": "boolean", "description": "Whether nothing will follow."},
        "reset": {
            "enum": ["trimmed", "lost", None],
            "description": "Why events are missing; continue from `snapshot`.",
        },
        "snapshot": {"anyOf": [ref("Operation"), {"type": "null"}]},
    },
    "required": ["operation", "events", "position", "done", "reset", "snapshot"],
}
_TICKET = {
    "name": "ticket",
    "in": "query",
    "description": "A ticket, instead of other credentials (`POST …/tickets`).",
    "schema": {"type": "string"},
}


def describe(app: FastAPI, settings: Settings, *, app_decides: bool = False) -> None:
    """Complete an app's OpenAPI document when it is first asked for.

    If `app_decides`, an app authenticates callers, in ways that are not described.
    """
    if app_decides:
        settings = settings.model_copy(update={"auth": "jwt", "jwt_cookie": ""})
    plain: Callable[[], dict[str, Any]] = app.openapi

    def described() -> dict[str, Any]:
        told = app.openapi_schema is not None
        document = plain()
        if not told:
            _complete(document, settings)
        return document

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any], settings: Settings) -> None:
    components = document["components"]
    schemas = components["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own error models, which are never sent
        schemas.pop(unused, None)
    others = schemas_of((*STREAMED, *CONTROL_OF_MANY.values(), WorkerPublish))
    schemas |= {name: it for name, it in others.items() if name not in schemas}
    type_operation(schemas["Operation"])
    schemas |= {"Problem": _PROBLEM, "Event": one_of(LOGGED), "StreamedEvent": one_of(STREAMED), "History": _HISTORY}
    schemas["ServerSentEvent"] = _server_sent(CONTROL.values())
    schemas["ServerSentEventOfMany"] = _server_sent(CONTROL_OF_MANY.values())
    components["securitySchemes"] = _security_schemes(settings)
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            _complete_call(path, method, call, settings)


def _complete_call(path: str, method: str, call: dict[str, Any], settings: Settings) -> None:
    responses = call["responses"]
    for status, response in rejections(*_codes_of(path, method)).items():
        if str(status) not in responses or "application/json" in responses[str(status)].get("content", {}):
            responses[str(status)] = response
    reads_events = method == "get" and path in (STREAM_OF_ONE, STREAM_OF_MANY, EVENTS)
    if reads_events:
        call.setdefault("parameters", []).append(_TICKET)
    call["security"] = _security(settings, is_open=path in OPEN_PATHS, tickets=reads_events)
    if method == "get" and path == EVENTS:
        responses["200"]["content"] = {"application/json": {"schema": ref("History")}}
    if call["operationId"] in EXAMPLES:
        call["x-codeSamples"] = EXAMPLES[call["operationId"]]


def _server_sent(control: Iterable[type[BaseModel]]) -> dict[str, Any]:
    data = {"anyOf": [ref("StreamedEvent"), *(ref(it.__name__) for it in dict.fromkeys(control))]}
    said = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
    return {**_SERVER_SENT_EVENT, "properties": {**_SERVER_SENT_EVENT["properties"], "data": said}}  # type: ignore[dict-item]


def _security_schemes(settings: Settings) -> dict[str, Any]:
    bearer = {"type": "http", "scheme": "bearer", "description": "A JWT, or an API key (`pbk_…`)."}
    about = "A ticket, for a client that can't set headers, such as EventSource."
    ticket = {"type": "apiKey", "in": "query", "name": "ticket", "description": about}
    schemes: dict[str, Any] = {"bearer": bearer, "ticket": ticket}
    if settings.jwt_cookie:
        about = "The token of a browser's session (`POST /v1/session`)."
        schemes["cookie"] = {"type": "apiKey", "in": "cookie", "name": settings.jwt_cookie, "description": about}
    return schemes


def _security(settings: Settings, *, is_open: bool, tickets: bool) -> list[dict[str, list[str]]]:
    """Return the ways to prove who calls; an empty one, first, where nobody has to."""
    if is_open:
        return []
    ways = ["bearer", *(["cookie"] if settings.jwt_cookie else []), *(["ticket"] if tickets else [])]
    required: list[dict[str, list[str]]] = [{way: []} for way in ways]
    return [{}, *required] if settings.auth == "none" else required


def _codes_of(path: str, method: str) -> list[str]:
    codes = [*_ANYWHERE]
    if path.startswith("/v1/"):
        codes += _UNDER_V1
        codes += _OF_ONE if "{id}" in path else ()
        codes += _CHANGING if method != "get" else ()
    elif path == "/metrics":
        codes += ("unauthenticated", "forbidden", "storage-unavailable")
    return codes
