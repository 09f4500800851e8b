"""Requests to a server: its errors are ours, a token that was replaced is found, and nothing is logged."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from progress_broker import errors
from progress_broker.errors import (
    AtCapacity,
    BrokerError,
    Draining,
    Forbidden,
    InvalidInput,
    NotFound,
    ServerUnavailable,
    SetupError,
    Unauthenticated,
    is_temporary,
)
from progress_client.http.connection import AsyncConnection, Connection
from progress_client.http.problems import error_of
from progress_server.http.problems import STATUS_OF_CODE, problem
from tests.api.proofs import AUDIENCE, SECRET, token
from tests.conftest import make_settings
from tests.servers import ApiReplica, RealRedis, free_port


@pytest.fixture(scope="module")
def replica(redis_server: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    log = tmp_path_factory.mktemp("api") / "log"
    with ApiReplica(redis_server.url, log, auth="jwt", jwt_key=SECRET, jwt_audience=AUDIENCE, jwt_leeway_s=0) as it:
        yield it


def connected(replica: ApiReplica, **changes: object) -> Connection:
    return Connection(make_settings(**{"url": replica.url, "token": token("ann", "read create")} | changes))


@pytest.mark.parametrize("code", STATUS_OF_CODE)
def test_each_rejection_of_a_server_is_the_error_that_it_was(code: str) -> None:
    answer = problem(code, "because", field="id", retry_s=3)
    error = error_of("http://here", answer.status_code, answer.headers, bytes(answer.body))
    assert error.field == "id"
    assert error.detail == "because" or (code == "unauthenticated" and "set PROGRESS_TOKEN or" in error.detail)
    assert error.retry_s == (3 if code in errors.RETRYABLE else None)
    assert is_temporary(error) == (code in errors.RETRYABLE | {"request-timeout", "internal"})
    if code in errors._BY_CODE:
        assert error.code == code


@pytest.mark.parametrize(
    ("status", "kind", "temporary"),
    [
        (401, Unauthenticated, False),
        (403, Forbidden, False),
        (404, ServerUnavailable, True),  # never NotFound: a worker would give its operation up
        (301, SetupError, False),
        (502, ServerUnavailable, True),
        (503, AtCapacity, True),
        (504, ServerUnavailable, True),
    ],
)
def test_what_a_proxy_answers_by_itself_is_told_apart(status: int, kind: type[BrokerError], temporary: bool) -> None:
    error = error_of("http://here", status, {"content-type": "text/html", "retry-after": "7"}, b"<html>")
    assert (type(error), is_temporary(error)) == (kind, temporary)
    assert "http://here" in error.detail


def test_requests_reach_the_server_and_their_errors_are_ours(replica: ApiReplica) -> None:
    with connected(replica) as connection:
        made = connection.request("POST", "/v1/operations", body=b'{"id": "over-http"}', repeatable=True)
        assert (made.status, made.headers["location"]) == (201, f"{replica.url}/v1/operations/over-http")
        listed = connection.request("GET", "/v1/operations", query=[("status", "pending"), ("status", "failed")])
        assert b'"id":"over-http"' in listed.body
        with pytest.raises(NotFound):
            connection.request("GET", "/v1/operations/none")
        with pytest.raises(InvalidInput) as invalid:
            connection.request("POST", "/v1/operations", body=b'{"id": 3}')
        assert invalid.value.field == "id"
        with pytest.raises(Forbidden):
            connection.request("POST", "/v1/operations/over-http/cancel")


def test_a_token_is_read_again_when_the_old_one_is_rejected(replica: ApiReplica, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{token('ann', 'read', exp=1)}\n")
    with connected(replica, token=None, token_file=file) as connection:
        with pytest.raises(Unauthenticated):
            connection.request("GET", "/v1/operations")
        file.write_text(f"{token('ann', 'read')}\n")
        assert connection.request("GET", "/v1/operations").status == 200


async def test_streams_come_in_chunks_or_are_rejected(replica: ApiReplica) -> None:
    settings = make_settings(url=replica.url, token=token("ann", "read create"))
    async with AsyncConnection(settings) as connection:
        await connection.request("POST", "/v1/operations", body=b'{"id": "streamed"}')
        async with connection.stream("/v1/operations/streamed/stream", silence_s=60) as (_, chunks):
            assert b"retry:" in await anext(chunks)
        with pytest.raises(NotFound):
            async with connection.stream("/v1/operations/none/stream", silence_s=60):
                pass


def test_what_is_sent_is_not_logged(replica: ApiReplica, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with connected(replica) as connection:
        connection.request("GET", "/v1/operations")
    assert [record.name for record in caplog.records if record.name.startswith("http")] == []


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with (
        Connection(make_settings(url=f"http://127.0.0.1:{free_port()}/below")) as connection,
        pytest.raises(ServerUnavailable, match=r"the server at http://127\.0\.0\.1:\d+/below can't be reached"),
    ):
        connection.request("GET", "/v1/operations", repeatable=True)
    assert is_temporary(Draining())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"redis_url": "redis://here"}, "PROGRESS_URL and PROGRESS_REDIS_URL are both set: remove"),
        ({"token_file": Path("/none")}, "PROGRESS_TOKEN and PROGRESS_TOKEN_FILE are both set"),
        ({"token_file": Path("/none"), "token": None}, "PROGRESS_TOKEN_FILE can't be read"),
        ({"url": None}, "PROGRESS_URL is not set"),
        ({"proxy": "ftp://here"}, "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names a proxy that can't be used"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_change(
    settings: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dict(settings)
    if proxy := settings.pop("proxy", None):
        monkeypatch.setenv("https_proxy", str(proxy))
    with pytest.raises(SetupError, match=said):
        Connection(make_settings(**{"url": "https://here", "token": "abc"} | settings))


@pytest.mark.parametrize(
    "bad",
    [
        *({"url": url} for url in ("here", "htps://here", "https://a:b@here", "http://x?y")),
        *({"url": url} for url in ("http://here:99999", "http://a b", "http://a..b", "http://[::1:80")),
        {"token": "a b"},
    ],
)
def test_an_invalid_url_or_token_is_rejected(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        make_settings(**bad)
