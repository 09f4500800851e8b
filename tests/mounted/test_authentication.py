"""Code of an app decides who a caller is: a dependency of FastAPI, or any function of a connection."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi.testclient import TestClient
from starlette.exceptions import WebSocketException
from starlette.requests import HTTPConnection

from progress_server import Principal, Progress, granted
from progress_server.mounted.authenticator import AppAuthenticator
from tests.api.proofs import KEY, bearing, secured
from tests.conftest import make_settings

OPS = "/progress/v1/operations"
User = Annotated[str | None, Header(alias="X-User")]


class Account:
    def __init__(self, name: str) -> None:
        self.name = name


def serving(authenticate: Any, redis_url: str, **changes: Any) -> TestClient:
    """Return a client of an app with the operation `a` of alice."""
    settings = changes.pop("settings", None) or make_settings(redis_url=redis_url, **changes)
    progress = Progress(authenticate=authenticate, settings=settings)
    app = FastAPI(lifespan=progress.lifespan)
    app.mount("/progress", progress.app)

    @app.post("/start/{id}")
    async def start(id: str) -> None:
        await progress.operations.create(id=id, owner="alice", kind="import")

    return TestClient(app, raise_server_exceptions=False)


async def dependency(user: User = None) -> str | None:
    return user


async def nested(request: Request, user: Annotated[str | None, Depends(dependency)]) -> str | None:
    assert request.app.title == "FastAPI"
    return user


async def with_exit(user: User = None) -> AsyncIterator[str | None]:
    yield user


def plain_function(user: User = None) -> str | None:
    return user


async def of_a_request(request: Request) -> str | None:
    return request.headers.get("x-user")


async def of_a_connection(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


async def without_annotation(connection):  # type: ignore[no-untyped-def]
    return connection.headers.get("x-user")


class Callable:
    async def __call__(self, request: Request) -> Principal | None:
        name = request.headers.get("x-user")
        return None if name is None else Principal(name)


KINDS = {
    **{it.__name__: it for it in (dependency, nested, with_exit, plain_function, of_a_request, of_a_connection)},
    "without annotation": without_annotation,
    "lambda": lambda connection: connection.headers.get("x-user"),
    "object": Callable(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_kind_of_code_names_the_caller(redis_url: str, kind: str) -> None:
    with serving(KINDS[kind], redis_url) as http:
        http.post("/start/a")
        alice = {"X-User": "alice"}
        assert http.get(f"{OPS}/a").status_code == 401
        assert http.get(f"{OPS}/a", headers={"X-User": "bob"}).status_code == 404
        assert http.get(f"{OPS}/a", headers=alice).json()["owner"] == "alice"
        assert http.get("/progress/v1/session", headers=alice).json()["principal"] == "alice"
        with http.websocket_connect(f"{OPS}/a/ws", headers=alice) as socket:
            assert socket.receive_json()["event"] == "open"


def test_one_who_is_only_named_may_read_and_cancel_what_it_owns_and_nothing_else(redis_url: str) -> None:
    with serving(dependency, redis_url) as http:
        http.post("/start/a")
        http.headers["X-User"] = "alice"
        assert http.post(f"{OPS}/a/events", json={"type": "log", "data": {"message": "x"}}).status_code == 403
        assert http.post(OPS, json={"owner": "alice"}).status_code == 403
        assert http.delete(f"{OPS}/a?force=true").status_code == 403
        assert http.get("/progress/metrics").status_code == 403
        listing = http.get(OPS)
        assert listing.json()["operations"][0]["id"] == "a"
        assert "ratelimit-policy" in listing.headers, "its limits are those of a server with authentication"
        assert http.post(f"{OPS}/a/cancel").status_code == 202


def test_a_principal_may_do_what_its_grants_say_for_as_long_as_it_says(redis_url: str) -> None:
    ends = time.time() + 0.5

    async def authenticate(request: Request) -> Principal:
        return Principal("carol", [granted(["read"], kinds=["import"])], ends)

    with serving(authenticate, redis_url) as http:
        http.post("/start/a")
        assert http.get(f"{OPS}/a").status_code == 200
        assert http.post(f"{OPS}/a/cancel").status_code == 403
        assert http.get(f"{OPS}/a/stream").text.rstrip().endswith('{"reason":"expired"}')
        assert time.time() >= ends


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (HTTPException(401, "sign in", {"WWW-Authenticate": "Basic"}), 401, "unauthenticated"),
        (HTTPException(403, "not here"), 403, "forbidden"),
        (HTTPException(402, "pay"), 402, "about:blank"),
        (HTTPException(307, "", {"Location": "/login"}), 307, "about:blank"),
        (HTTPException(503, "no database", {"Retry-After": "7"}), 503, "authorizer-unavailable"),
        (WebSocketException(1008), 401, "unauthenticated"),
    ],
)
def test_an_error_that_it_raises_is_answered_as_a_problem(
    redis_url: str, error: Exception, status: int, type: str
) -> None:
    async def authenticate(request: Request) -> str:
        raise error

    with serving(authenticate, redis_url) as http:
        answer = http.get(f"{OPS}/a", follow_redirects=False)
        assert (answer.status_code, answer.json()["type"], answer.json()["status"]) == (status, type, status)
        assert answer.headers["content-type"] == "application/problem+json"
        if isinstance(error, HTTPException):
            assert answer.json()["detail"] == error.detail
            for name, value in (error.headers or {}).items():
                assert value in (answer.headers[name], "7")
        with http.websocket_connect(f"{OPS}/a/ws") as socket:
            assert socket.receive_json()["event"] == "problem"
        if status == 503:
            told = http.get(f"{OPS}/a/stream", headers={"Accept": "text/event-stream"})
            assert (told.status_code, "event: reconnect" in told.text) == (200, True)


@pytest.mark.parametrize("status", [204, 205, 304])
def test_a_status_that_has_no_body_gets_none(redis_url: str, status: int) -> None:
    async def authenticate(request: Request) -> str:
        raise HTTPException(status)

    with serving(authenticate, redis_url) as http:
        answer = http.get(f"{OPS}/a")
        assert (answer.status_code, answer.content) == (status, b"")


@pytest.mark.parametrize("answer", ["", "x" * 129, "a\nb", Account("alice"), 7, True])
def test_what_names_nobody_lets_nobody_in(redis_url: str, answer: object) -> None:
    async def authenticate(request: Request) -> object:
        return answer

    with serving(authenticate, redis_url) as http:
        rejected = http.get(f"{OPS}/a")
    if isinstance(answer, str):
        assert rejected.status_code == 401
    else:
        assert (rejected.status_code, rejected.json()["type"]) == (500, "internal")


def test_a_dependency_without_what_it_needs_is_not_called(redis_url: str) -> None:
    async def authenticate(user: Annotated[str, Header(alias="X-User")]) -> str:
        return user

    with serving(authenticate, redis_url) as http:
        http.post("/start/a")
        assert http.get(f"{OPS}/a").status_code == 401
        assert http.get(f"{OPS}/a", headers={"X-User": "alice"}).status_code == 200


def test_its_credentials_may_be_of_any_kind(redis_url: str) -> None:
    async def authenticate(request: Request) -> str | None:
        return request.query_params.get("token")

    async def basic(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> str:
        return given.username

    with serving(authenticate, redis_url) as http:
        http.post("/start/a")
        assert http.get(f"{OPS}/a?token=alice").status_code == 200
        http.post(f"{OPS}/a/cancel?token=alice")
        assert "event: end" in http.get(f"{OPS}/a/stream?token=alice&tab=7").text
    with serving(basic, redis_url) as http:
        assert http.get(f"{OPS}/a").headers["www-authenticate"] == "Basic"
        assert http.get(f"{OPS}/a", auth=("alice", "secret")).status_code == 200
        assert http.post("/progress/v1/session", auth=("alice", "secret")).status_code == 403


def test_api_keys_and_tickets_go_on_to_work(redis_url: str, tmp_path: Path) -> None:
    settings = secured(tmp_path, redis_url=redis_url)
    with serving(dependency, redis_url, settings=settings) as http:
        http.post("/start/a")
        log = {"type": "log", "data": {"message": "x"}}
        assert http.post(f"{OPS}/a/events", json=log, headers=bearing(KEY)).status_code == 200
        assert http.post(f"{OPS}/a/events", json=log, headers=bearing("pbk_other")).status_code == 401
        ticket = http.post(f"{OPS}/a/tickets", headers={"X-User": "alice"}).json()["ticket"]
        http.post(f"{OPS}/a/cancel", headers={"X-User": "alice"})
        assert "event: end" in http.get(f"{OPS}/a/stream?ticket={ticket}").text
        assert http.get(f"{OPS}/a?ticket={ticket}").status_code == 401


def test_tests_of_the_app_override_it(redis_url: str) -> None:
    with serving(nested, redis_url) as http:
        http.post("/start/a")
        overrides: dict[Any, Any] = http.app.dependency_overrides  # type: ignore[attr-defined]
        overrides[dependency] = lambda: "alice"
        assert http.get(f"{OPS}/a").status_code == 200
        overrides.clear()
        assert http.get(f"{OPS}/a").status_code == 401


async def test_what_it_holds_is_released_before_the_request_goes_on() -> None:
    held: list[int] = []

    async def session() -> AsyncIterator[int]:
        held.append(1)
        yield len(held)
        held.pop()

    async def authenticate(held: Annotated[int, Depends(session)]) -> str:
        assert held == 1
        return "alice"

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    assert (await AppAuthenticator(authenticate).authenticate(HTTPConnection(scope))).name == "alice"
    assert held == []


def test_what_no_principal_can_be_says_what_one_is() -> None:
    for wrong in (
        lambda: granted("read"),
        lambda: granted(["read"], owners="alice"),
        lambda: granted(["read"], ids=[5]),
    ):
        with pytest.raises(ValueError, match="expected a list of texts"):
            wrong()
    with pytest.raises(ValueError, match="'fly' is not an action: use "):
        granted(["fly"])
    wrong_grants: list[Any] = ["read", ["read"], [granted(["read"]), 5]]
    for grants in wrong_grants:
        with pytest.raises(TypeError, match="that `granted` makes"):
            Principal("alice", grants)
    with pytest.raises(TypeError, match="the name of a principal is a text"):
        Principal(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="authenticate: expected a dependency"):
        Progress("alice")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="settings: expected `Settings`"):
        Progress(lambda _: None, settings={})  # type: ignore[arg-type]
