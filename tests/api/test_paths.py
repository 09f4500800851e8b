"""The class of a request by its path, and the order of the middleware."""

from collections.abc import Sequence
from typing import Any

import pytest
from fastapi import APIRouter
from starlette.middleware import Middleware
from starlette.types import Scope

from progress_broker.limits.limiter import Limiter
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.auth.guard import Guard
from progress_server.callback.authenticator import CallbackAuthenticator
from progress_server.context import live_settings
from progress_server.http.paths import class_of, classify, operation_in, store_class
from progress_server.middleware.stack import build_stack
from progress_server.routes import history, streams, websocket
from tests.conftest import make_settings


def scope(path: str, **changes: Any) -> Scope:
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", **changes}


def paths(router: APIRouter) -> list[str]:
    return [route.path.replace("{id}", "a") for route in router.routes]


@pytest.mark.parametrize("path", [*paths(streams.router), *paths(websocket.router)])
def test_whatever_has_a_stream_is_counted_as_one(path: str) -> None:
    found = classify(scope(path))
    assert found.streams
    assert found.limited
    assert not found.is_open
    assert found.of_one is ("operations" in path)
    assert not found.of_one or operation_in(scope(f"/under{path}", root_path="/under")) == "a"


@pytest.mark.parametrize("path", paths(history.router))
def test_a_history_is_of_one_operation_and_may_wait(path: str) -> None:
    assert classify(scope(path, query_string=b"wait=1")).is_long_poll
    assert classify(scope(path)).of_one
    assert not classify(scope(path, method="POST")).of_one


@pytest.mark.parametrize("path", ["/", "/livez", "/web/client/fold.js", "/web/none"])
def test_what_is_open_is_not_limited(path: str) -> None:
    assert classify(scope(path)).is_open
    assert not classify(scope(path)).limited
    assert not classify(scope(f"/v1{path}")).is_open


def test_a_class_is_noted_anew_whatever_an_app_around_ours_noted() -> None:
    request = scope("/livez")
    store_class(request)
    request["path"] = "/v1/stream"
    assert class_of(request).is_open, "it is found out once"
    store_class(request)
    assert class_of(request).streams


def order(settings: Settings) -> Sequence[Middleware]:
    tally = Tally()
    callback = CallbackAuthenticator(settings, tally) if settings.auth == "callback" else None
    return build_stack(
        settings, tally, Guard(settings, callback), Limiter(settings, tally), callback, live_settings(settings)
    )


OUTSIDE = (
    "AccessLogMiddleware SecurityHeadersMiddleware UnreadableMiddleware TrustedHosts CORSMiddleware CsrfMiddleware"
)
THEN = "ServerErrorMiddleware StartupMiddleware"


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({}, f"AdmissionMiddleware {THEN} AuthenticationMiddleware LimitsMiddleware CompressionMiddleware"),
        (
            {"auth": "jwt", "jwt_key": "s" * 32},
            f"{THEN} AuthenticationMiddleware AdmissionMiddleware LimitsMiddleware CompressionMiddleware",
        ),
        (
            {"auth": "callback", "callback_url": "http://localhost/", "callback_secret": f"whsec_{'s' * 32}"},
            f"{THEN} PreAuthLimits AdmissionMiddleware AuthorizedConnectionMiddleware AuthenticationMiddleware"
            " LimitsMiddleware CompressionMiddleware",
        ),
    ],
)
def test_strangers_take_no_places_unless_somebody_else_is_asked_who_they_are(
    changes: dict[str, Any], inside: str
) -> None:
    settings = make_settings(allowed_hosts=("example.org",), cors_origins=("https://example.org",), **changes)
    assert [it.cls.__name__ for it in order(settings)] == f"{OUTSIDE} {inside}".split()
