"""How requests are named, counted and logged."""

import logging
from typing import Any

import httpx
import pytest

from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_server.app import create_app
from progress_server.http.problems import STATUS_OF_CODE
from tests.api.test_metrics import Figures, scrape
from tests.api.test_operations import OPS, create, finish, publish
from tests.conftest import make_settings


async def test_an_answer_tells_its_requests_id(http: httpx.AsyncClient) -> None:
    made = [(await http.get("/livez")).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    answer = await http.get(f"{OPS}/nope", headers={"X-Request-Id": "Root=1-67-ab/c:d+e_f.g"})
    assert answer.status_code == 404
    assert answer.headers.get_list("x-request-id") == ["Root=1-67-ab/c:d+e_f.g"]


@pytest.mark.parametrize("odd", ["", "a b", 'x"y', "x" * 129, "é".encode().decode("latin-1"), "a,b"])
async def test_an_id_that_is_odd_is_replaced(http: httpx.AsyncClient, odd: str) -> None:
    answer = await http.get("/livez", headers={"X-Request-Id": odd.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.headers["x-request-id"] not in ("", odd)


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
async def test_a_stream_tells_what_the_log_calls_it(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, outlet: str
) -> None:
    caplog.set_level(logging.DEBUG, "progress_broker.stream.registry")
    await create(http, id="a")
    await finish(http, "a")
    answers = [await http.get(f"{OPS}/a/stream") for _ in range(2)]
    names = [answer.headers["progress-connection"] for answer in answers]
    assert len(set(names)) == 2
    for name in names:
        said = [record.message for record in caplog.records if getattr(record, "connection", None) == name]
        assert [word for line in said for word in ("opened", "closed") if word in line] == ["opened", "closed"]
    assert all("x-request-id" in answer.headers for answer in answers)


async def test_a_position_that_is_lost_is_logged_with_the_connection(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "progress_broker.stream.registry")
    await create(http, id="a")
    await finish(http, "a")
    answer = await http.get(f"{OPS}/a/stream", headers={"Last-Event-ID": "99999999999999-0"})
    [line] = [record for record in caplog.records if "can't resume" in record.message]
    assert vars(line)["connection"] == answer.headers["progress-connection"]


async def test_requests_are_counted_by_the_template_of_their_route(http: httpx.AsyncClient) -> None:
    for number in range(3):
        await http.get(f"{OPS}/nope{number}")
    await create(http, id="a")
    await http.get("/no/such/page")
    await http.request("PROPFIND", f"{OPS}/a")
    told = await scrape(http)
    assert told("http_requests_total", method="GET", route=f"{OPS}/{{id}}", status="4xx") == 3
    assert told("http_requests_total", method="POST", route=OPS, status="2xx") == 1
    assert told("http_requests_total", method="GET", route="other", status="4xx") == 1
    assert told("http_requests_total", method="other", route=f"{OPS}/{{id}}", status="4xx") == 1
    assert told("http_response_seconds_count", method="GET", route=f"{OPS}/{{id}}") == 3


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
async def test_a_stream_is_counted_when_its_answer_begins(http: httpx.AsyncClient, outlet: str) -> None:
    await create(http, id="a")
    async with http.stream("GET", f"{OPS}/a/stream"):
        told = await scrape(http)
        assert told("http_requests_total", route=f"{OPS}/{{id}}/stream", status="2xx") == 1


async def test_every_rejection_is_counted_by_its_reason(http: httpx.AsyncClient, app: Any) -> None:
    await create(http, id="a")
    await http.get(f"{OPS}/nope")
    await http.get(f"{OPS}/nope/stream")
    await http.post(f"{OPS}/a/events", json={"type": "error"})
    await http.delete(f"{OPS}/a")
    await http.put(f"{OPS}/a")
    app.state.context.hub.draining = True
    assert (await http.get(f"{OPS}/a/stream", headers={"Accept": "text/event-stream"})).status_code == 200
    told = await scrape(http)
    counts = {it.labels["reason"]: it.value for it in told.all("http_requests_rejected_total")}
    assert counts.keys() == STATUS_OF_CODE.keys(), "each is there from the beginning, and no other can be"
    expected = {"not-found": 2, "invalid": 1, "operation-running": 1, "method-not-allowed": 1, "draining": 1}
    assert {reason: count for reason, count in counts.items() if count} == expected


async def test_a_fault_is_named_counted_and_logged_with_its_request(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(store.settings, store)
    caplog.set_level(logging.DEBUG, "progress_server.middleware.access_log")

    async def broken(_: object) -> None:
        raise ZeroDivisionError

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
    ):
        monkeypatch.setattr(store, "get", broken)
        answer = await http.get(f"{OPS}/a")
        told = Figures((await http.get("/metrics")).text)
    assert (answer.status_code, answer.json()["type"]) == (500, "internal")
    assert told("http_requests_total", route=f"{OPS}/{{id}}", status="5xx") == 1
    assert told("http_requests_rejected_total", reason="internal") == 1
    line = vars(next(record for record in caplog.records if record.name == "progress_server.middleware.access_log"))
    assert (line["request"], line["rejected"], line["status"]) == (answer.headers["x-request-id"], "internal", 500)


async def test_what_is_published_is_counted_by_what_came_of_it(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    await publish(http, "a", "log", {"message": "m"})
    lines = b'{"type": "log", "data": {"message": "1"}}\n{"type": "log", "data": {"message": "2"}}\n'
    await http.post(f"{OPS}/a/events", content=lines, headers={"Content-Type": "application/x-ndjson"})
    await finish(http, "a")
    await http.post(f"{OPS}/a/events", json={"type": "log", "data": {"message": "too late"}})
    told = await scrape(http)
    assert told("published_events_total", outcome="stored") == 4
    assert told("published_events_total", outcome="operation-ended") == 1
    assert told("published_bytes_total", outcome="operation-ended") == len('{"message":"too late"}')


class TestAnAccessLog:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(access_log=True)

    async def test_has_a_line_for_each_request_and_nothing_of_its_query(
        self, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "progress_server.middleware.access_log")
        await http.get(f"{OPS}/no%0Ape?ticket=s3cret", headers={"X-Request-Id": "r1"})
        [line] = [record for record in caplog.records if record.name == "progress_server.middleware.access_log"]
        said = vars(line)
        assert said["levelno"] == logging.INFO
        assert (said["method"], said["path"], said["status"]) == ("GET", f"{OPS}/no%0Ape", 422)
        assert (said["route"], said["request"], said["rejected"]) == (f"{OPS}/{{id}}", "r1", "invalid")
        assert "s3cret" not in str(said)
        assert "\n" not in line.getMessage()

    async def test_names_who_asked(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        class Somebody:
            name = "alice"

        app = create_app(store.settings, store)
        caplog.set_level(logging.INFO, "progress_server.middleware.access_log")
        transport = httpx.ASGITransport(app)

        async def known(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("state", {})["principal"] = Somebody()
            await app(scope, receive, send)

        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(known)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                await http.get("/livez")
        [line] = [record for record in caplog.records if record.name == "progress_server.middleware.access_log"]
        assert vars(line)["principal"] == "alice"


async def test_without_one_only_debug_tells_of_requests(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "progress_server.middleware.access_log")
    await http.get("/livez")
    assert [record for record in caplog.records if record.name == "progress_server.middleware.access_log"] == []
