"""The API's description lists what there is, and no error leaves without a status."""

import inspect
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from progress_broker import errors
from progress_broker.errors import BrokerError
from progress_server.app import create_app
from progress_server.http.problems import RETRYABLE, STATUS_OF_CODE, problem
from tests.conftest import make_settings

CALLS = {
    "/v1/operations": {"post", "get"},
    "/v1/operations/{id}": {"get", "delete"},
    "/v1/operations/{id}/cancel": {"post"},
    "/v1/operations/{id}/events": {"post", "get"},
    "/v1/operations/{id}/signals": {"post"},
    "/v1/operations/{id}/stream": {"get"},
    "/v1/operations/{id}/tickets": {"post"},
    "/v1/tickets": {"post"},
    "/v1/revocations": {"get", "post", "delete"},
    "/v1/session": {"get", "post", "delete"},
    "/v1/stream": {"get"},
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
