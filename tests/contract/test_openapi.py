"""The API's description lists what there is, and no error leaves without a status."""

import inspect
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from progress_broker import errors
from progress_broker.errors import RETRYABLE, BrokerError
from progress_server.app import create_app
from progress_server.http.problems import STATUS_OF_CODE, problem
from tests.conftest import make_settings

CALLS = {
    "/v1/operations": {"post", "get"},
    "/v1/operations/counts": {"get"},
    "/v1/operations/{id}": {"get", "delete", "patch"},
    "/v1/operations:cancel": {"post"},
    "/v1/operations:signal": {"post"},
    "/v1/operations:purge": {"post"},
    "/v1/operations/{id}/cancel": {"post"},
    "/v1/operations/{id}/events": {"post", "get"},
    "/v1/operations/{id}/signals": {"post"},
    "/v1/operations/{id}/stream": {"get"},
    "/v1/operations/{id}/tickets": {"post"},
    "/v1/tickets": {"post"},
    "/v1/revocations": {"get", "post", "delete"},
    "/v1/admin/replicas": {"get"},
    "/v1/admin/monitor": {"get"},
    "/v1/admin/stats": {"get"},
    "/v1/admin/workers": {"get"},
    "/v1/admin/storage": {"get"},
    "/v1/admin/streams": {"get"},
    "/v1/admin/streams/{connection}": {"delete"},
    "/v1/admin/limits": {"get"},
    "/v1/admin/limits/{principal}": {"put", "delete"},
    "/v1/admin/reload": {"post"},
    "/v1/admin/drain": {"post"},
    "/v1/admin/retention": {"get", "put"},
    "/v1/audit": {"get"},
    "/v1/export": {"get"},
    "/v1/import": {"post"},
    "/v1/operations/{id}/export": {"get"},
    "/v1/operations/{id}/replay": {"get"},
    "/v1/session": {"get", "post", "delete"},
    "/v1/stream": {"get"},
    "/v1/workers/create": {"post"},
    "/v1/workers/publish": {"post"},
    "/v1/workers/signals": {"post"},
    "/v1/workers/view": {"post"},
    "/livez": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}
METHODS = {"get", "head", "post", "put", "patch", "delete", "options", "trace"}

# What the wire contract says; a code of ours that it does not know needs a status all the same.
CONTRACT = {
    "not-found": 404,
    "gone": 410,
    "operation-exists": 409,
    "operation-ended": 409,
    "fenced": 409,
    "gap": 409,
    "invalid": 422,
    "too-large": 413,
    "unauthenticated": 401,
    "forbidden": 403,
    "too-many-streams": 429,
    "rate-limited": 429,
    "draining": 503,
    "at-capacity": 503,
    "authorizer-unavailable": 503,
    "storage-unavailable": 503,
    "storage-full": 507,
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = create_app(make_settings()).openapi()
    return found


def test_it_lists_the_calls_there_are(document: dict[str, Any]) -> None:
    listed = {path: METHODS & set(described) for path, described in document["paths"].items()}
    assert listed == CALLS


def test_each_call_says_what_it_does(document: dict[str, Any]) -> None:
    calls = [call for path in document["paths"].values() for method, call in path.items() if method in METHODS]
    for call in calls:
        assert call["summary"]
        assert call["description"], call["summary"]


def test_it_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [fault.message for fault in OpenAPIV31SpecValidator(document).iter_errors()] == []


TICKETS = {"/v1/operations/{id}/stream", "/v1/operations/{id}/events", "/v1/stream"}


@pytest.mark.parametrize("auth", ["none", "jwt"])
def test_each_call_says_how_callers_prove_who_they_are(auth: str) -> None:
    key = {"auth": auth, "jwt_key": "a secret that is long enough for HS256, and for tests"} if auth == "jwt" else {}
    document = create_app(make_settings(**key)).openapi()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] | {"description": ""} == {"type": "http", "scheme": "bearer", "description": ""}
    assert (schemes["cookie"]["in"], schemes["cookie"]["name"]) == ("cookie", "progress_token")
    assert (schemes["ticket"]["in"], schemes["ticket"]["name"]) == ("query", "ticket")
    for path, calls in document["paths"].items():
        for method, call in calls.items():
            ways = [way for ways in call["security"] for way in ways]
            reads = path in TICKETS and method == "get"
            if path in ("/livez", "/readyz"):
                assert call["security"] == []
            else:
                assert ways == ["bearer", "cookie", *(["ticket"] if reads else [])]
                assert ({} in call["security"]) == (auth == "none")
            names = [it["name"] for it in call.get("parameters", []) if it["in"] == "query"]
            assert ("ticket" in names) == reads, path


def _resolved(document: dict[str, Any], name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": document["components"]})


ENVELOPES = {
    "progress": {"percent": 42.0, "stages": [{"name": "extract"}], "mine": 1},
    "log": {"message": "m"},
    "metadata": {"customer": 42, "phase": None},
    "status": {"status": "running", "attempt": 2},
    "child": {"operation": "b", "kind": "k", "title": None, "weight": 1.0},
    "end": {"status": "failed", "result": None, "error": {"type": "t", "message": "m"}},
    "malformed": {"reason": "its data is not JSON", "bytes": 4},
    "x.y": [1],
}
BAD = {
    "progress": {"percent": 101},
    "log": {},
    "metadata": [1],
    "status": {"status": "done"},
    "child": {},
    "end": {"status": "running"},
    "malformed": {},
}


def test_events_are_typed(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert "discriminator" not in schemas["Event"]  # it would forbid all types that it does not list
    for name in ("Event", "StreamedEvent"):
        validator = _resolved(document, name)
        for kind, data in ENVELOPES.items():
            event = {"operation": "a", "n": 1, "type": kind, "time": 1, "data": data}
            assert validator.is_valid(event), kind
            assert not validator.is_valid(event | {"data": BAD[kind]} if kind in BAD else event | {"n": 0}), kind
            assert not validator.is_valid(event | {"type": "operations"})
    events = schemas["History"]["properties"]["events"]
    assert events["items"] == {"$ref": "#/components/schemas/Event"}
    history = document["paths"]["/v1/operations/{id}/events"]["get"]["responses"]["200"]["content"]
    assert history["application/json"]["schema"] == {"$ref": "#/components/schemas/History"}
    for path, item in (("/v1/operations/{id}/stream", "ServerSentEvent"), ("/v1/stream", "ServerSentEventOfMany")):
        content = document["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"]
        assert content == {"schema": {"$ref": f"#/components/schemas/{item}"}}
        event = {"id": "1-0", "event": "end", "data": "{}"}
        assert _resolved(document, item).is_valid(event)
        assert not _resolved(document, item).is_valid(event | {"data": {}})


def test_progress_and_errors_are_typed(document: dict[str, Any]) -> None:
    validator = _resolved(document, "Operation")
    shown = make_operation()
    validator.validate(shown)
    validator.validate(shown | {"progress": {"percent": 1, "rolled_up": True}, "error": {"type": "t", "message": "m"}})
    assert not validator.is_valid(shown | {"progress": {"percent": "1"}})
    assert not validator.is_valid(shown | {"error": {"message": "m"}})


def make_operation() -> dict[str, Any]:
    at = "2026-11-21T03:22:35.035Z"
    none = dict.fromkeys(("title", "owner", "parent", "worker", "cancel", "progress", "result", "error"))
    times = {"created_at": at, "started_at": None, "updated_at": at, "finished_at": None, "expires_at": None}
    said = {"id": "a", "kind": "k", "tags": [], "weight": 1.0, "status": "pending", "done": False, "attempt": 1}
    return none | times | said | {"cancel_requested": False, "children": None, "position": "1-0", "events": 1}


@pytest.mark.parametrize("call", ["create", "publish", "history", "stream", "multi_stream"])
def test_calls_have_examples(document: dict[str, Any], call: str) -> None:
    [found] = [it for path in document["paths"].values() for it in path.values() if it["operationId"] == call]
    labels = [sample["label"] for sample in found["x-codeSamples"]]
    assert labels == (["curl", "EventSource"] if "stream" in call else ["curl"])
    assert all(sample["source"] for sample in found["x-codeSamples"])


def test_call_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [
        call["operationId"] for path in document["paths"].values() for method, call in path.items() if method in METHODS
    ]
    assert sorted(ids) == sorted(set(ids))


def test_every_reference_leads_somewhere_and_every_schema_is_one(document: dict[str, Any]) -> None:
    names = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in names, reference
    for schema in names.values():
        Draft202012Validator.check_schema(schema)


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for inner in value.values() for reference in _references(inner)]
    if isinstance(value, list):
        return [reference for inner in value for reference in _references(inner)]
    return []


def codes() -> set[str]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BrokerError)]
    return {kind.code for kind in found}


def test_every_error_has_a_status() -> None:
    assert codes() <= set(STATUS_OF_CODE)
    assert {code: STATUS_OF_CODE[code] for code in CONTRACT} == CONTRACT


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for kind in BrokerError.__subclasses__():
        if kind.__module__ == errors.__name__:
            assert f"{kind.__name__} " in errors.__doc__
            assert f" {kind.code} " in errors.__doc__


@pytest.mark.parametrize("code", sorted(STATUS_OF_CODE))
def test_a_problem_is_one(code: str) -> None:
    answer = problem(code, "what happened", field="part")
    assert (answer.status_code, answer.media_type) == (STATUS_OF_CODE[code], "application/problem+json")
    assert ("retry-after" in answer.headers) == (code in RETRYABLE)
    assert all(STATUS_OF_CODE[passing] in (429, 503) for passing in RETRYABLE)
    assert {passing for passing, status in STATUS_OF_CODE.items() if status in (429, 503)} == RETRYABLE


def test_each_rejection_is_a_problem(document: dict[str, Any]) -> None:
    for path, described in document["paths"].items():
        for method in METHODS & set(described):
            responses = described[method]["responses"]
            rejections = {status: told for status, told in responses.items() if status >= "4"}
            assert {"421", "500"} <= set(rejections)
            if path.startswith("/v1/"):
                assert {"401", "403", "422", "429", "503"} <= set(rejections), (path, method)
            for status, told in rejections.items():
                assert list(told["content"]) == ["application/problem+json"], (path, method, status)
                assert ("headers" in told) == (status in ("429", "503"))
    assert "HTTPValidationError" not in document["components"]["schemas"]
