"""Streams and calls where the user's own back end decides: a real server of ours, and a real one of theirs."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import Response

from progress_broker.operations.store import Store
from progress_server.app import create_app
from tests import sse
from tests.api.conftest import InLoopServer
from tests.api.test_admission import EVENT_SOURCE
from tests.api.test_operations import OPS, create, finish, problem, publish
from tests.api.test_stream import until
from tests.callback.backend import ALLOW, EVERYTHING, SECRET, TheirBackend
from tests.e2e.test_eventsource import Script
from tests.servers import eventually

STREAM = f"{OPS}/a/stream"
COOKIE = {"Cookie": "sid=5ecret"}

both_outlets = pytest.mark.parametrize("outlet", ["adopted", "asgi"])


@pytest.fixture
async def callbacks(app: Any, http: httpx.AsyncClient) -> Any:
    """What is counted, of a server that has an operation "a"."""
    await create(http, id="a", owner="alice")
    return app.state.context.hub.tally.callbacks


@asynccontextmanager
async def following(http: httpx.AsyncClient, url: str = STREAM, **headers: str) -> AsyncIterator[AsyncIterator[bytes]]:
    async with http.stream("GET", url, headers=EVENT_SOURCE | headers) as answer:
        assert answer.status_code == 200
        yield answer.aiter_bytes()


class TestAConnection:
    @both_outlets
    async def test_is_asked_for_when_it_opens_and_told_of_once_when_it_ends(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        async with following(http, f"{STREAM}?tab=7", **COOKIE) as stream:
            await until(stream, b"snapshot")
            [opened] = theirs.of("connect")
            assert theirs.of("disconnect") == []
        notice = await theirs.heard("disconnect")
        assert opened["headers"]["cookie"] == "sid=5ecret"
        assert (opened["url"], opened["method"], opened["operation"]) == (f"{STREAM}?tab=7", "GET", "a")
        assert (opened["principal"], opened["client"]) == (None, "127.0.0.1")
        assert notice.pop("lasted_s") >= 0
        assert notice == {
            "action": "disconnect",
            "connection": opened["connection"],
            "url": f"{STREAM}?tab=7",
            "operation": "a",
            "principal": "alice",
            "client": "127.0.0.1",
            "reason": "client",
        }
        assert callbacks["connect", "allowed"] == 1
        await eventually(lambda: callbacks["disconnect", "sent"] == 1, "it is counted")
        assert theirs.unverified == 0
        assert len(set(theirs.ids)) == len(theirs.received), "each message has an id of its own"

    async def test_that_ends_with_its_operation_says_so(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        async with following(http) as stream:
            await finish(http, "a")
            await until(stream, b"event: end")
        assert (await theirs.heard("disconnect"))["reason"] == "ended"

    @pytest.mark.parametrize(
        ("url", "headers", "status"),
        [
            (f"{OPS}/nope/stream", {}, 404),
            (f"{STREAM}?types=%20", {}, 422),
            (f"{OPS}/a/ws", {}, None),
            (STREAM, {"Last-Event-ID": "nonsense"}, 422),
        ],
    )
    async def test_that_gets_no_stream_ends_with_its_request(
        self,
        theirs: TheirBackend,
        callbacks: Any,
        http: httpx.AsyncClient,
        url: str,
        headers: dict[str, str],
        status: int | None,
    ) -> None:
        answer = await http.get(url, headers=headers)
        assert answer.status_code == status or (status is None and answer.status_code >= 400)
        notice = await theirs.heard("disconnect")
        assert (notice["reason"], notice["connection"]) == ("rejected", theirs.of("connect")[0]["connection"])

    @pytest.mark.parametrize("path", [STREAM, "/v1/stream?operation=a"])
    async def test_is_not_asked_for_by_a_server_that_drains(
        self, theirs: TheirBackend, callbacks: Any, app: Any, http: httpx.AsyncClient, path: str
    ) -> None:
        app.state.context.hub.drain()
        problem(await http.get(path), 503, "draining")
        assert "event: reconnect\n" in (await http.get(path, headers=EVENT_SOURCE)).text
        assert theirs.of("connect") == []
        assert app.state.context.hub.tally.rejected["draining"] == 2

    async def test_is_told_of_when_the_server_drains(
        self, theirs: TheirBackend, app: Any, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        async with following(http) as one, following(http) as other:
            for stream in (one, other):
                await until(stream, b"snapshot")
            app.state.context.hub.drain(0.6)
            for stream in (one, other):
                await until(stream, b"draining")
        await theirs.heard("disconnect", 2)
        assert {notice["reason"] for notice in theirs.of("disconnect")} == {"draining"}
        connections = [[notice["connection"] for notice in theirs.of(action)] for action in ("connect", "disconnect")]
        assert sorted(connections[0]) == sorted(connections[1])
        assert len(set(connections[0])) == 2

    async def test_is_told_of_again_while_the_back_end_is_in_trouble(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.disconnect_statuses = [500, 200]
        async with following(http) as stream:
            await until(stream, b"snapshot")
        await eventually(lambda: callbacks["disconnect", "sent"], "it is sent in the end")
        first, second = theirs.of("disconnect")
        assert first == second


async def test_who_stops_at_once_still_tells_of_all(
    theirs: TheirBackend, app: Any, server: InLoopServer, http: httpx.AsyncClient
) -> None:
    await create(http, id="a")
    async with following(http) as stream:
        await until(stream, b"snapshot")
        app.state.context.hub.drain()
        server.should_exit = True
        await until(stream, b"draining")
    await eventually(lambda: not server.started or theirs.of("disconnect"), "it has ended")
    await theirs.heard("disconnect")


class TestATicket:
    async def ticket(self, http: httpx.AsyncClient) -> str:
        answer = await http.post(f"{OPS}/a/tickets")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ticket"])

    async def test_is_asked_for_too_by_name_and_not_shown(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        ticket = await self.ticket(http)
        theirs.decide = lambda _: ALLOW | {"expires_in_s": 1, "events": [{"type": "welcome"}]}
        async with following(http, f"{STREAM}?ticket={ticket}&tab=7") as stream:
            heard = b"".join([part async for part in stream])
        assert b"event: welcome" in heard
        assert b'{"reason":"expired"}' in heard  # sooner than the ticket's proof
        [asked] = theirs.of("connect")
        assert (asked["principal"], asked["url"]) == ("alice", f"{STREAM}?tab=7")
        assert ticket not in str(theirs.received)

    async def test_opens_nothing_that_the_back_end_does_not_want(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        url = f"{STREAM}?ticket={await self.ticket(http)}"
        theirs.decide = lambda _: {"allow": False}
        problem(await http.get(url), 401, "unauthenticated")

    async def test_opens_nothing_more_because_the_back_end_would(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        await create(http, id="b")
        ticket = await self.ticket(http)
        problem(await http.get(f"{OPS}/b/stream?ticket={ticket}"), 401, "unauthenticated")
        problem(await http.get(f"{STREAM}?ticket={ticket[:-1]}"), 401, "unauthenticated")
        assert theirs.of("connect") == []

    async def test_reads_the_history_without_a_question(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        ticket, asked = await self.ticket(http), len(theirs.received)
        assert (await http.get(f"{OPS}/a/events?ticket={ticket}", headers=COOKIE)).status_code == 200
        assert len(theirs.received) == asked


class TestACookie:
    """A browser sends it along, whoever made it call."""

    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"cors_origins": ("https://friend.example",)}

    @pytest.mark.parametrize(
        ("headers", "status", "code"),
        [
            ({}, 401, "unauthenticated"),
            ({"Origin": "https://evil.example"}, 403, "forbidden"),
            ({"Sec-Fetch-Site": "cross-site"}, 403, "forbidden"),
        ],
    )
    async def test_from_elsewhere_changes_nothing(
        self,
        theirs: TheirBackend,
        callbacks: Any,
        http: httpx.AsyncClient,
        headers: dict[str, str],
        status: int,
        code: str,
    ) -> None:
        asked = len(theirs.received)
        problem(await http.post(f"{OPS}/a/cancel", headers=COOKIE | headers), status, code)
        assert len(theirs.received) == asked

    @pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "https://friend.example"}])
    async def test_from_our_pages_or_friends_does(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        assert (await http.post(f"{OPS}/a/cancel", headers=COOKIE | headers)).status_code in (200, 202)
        assert theirs.of("call")[-1]["headers"]["cookie"] == "sid=5ecret"

    async def test_that_keeps_a_token_for_the_page_is_told_as_that_token(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda it: ALLOW if it["headers"].get("authorization") == "Bearer t0ken" else {"allow": False}
        kept = await http.post("/v1/session", headers={"Authorization": "Bearer t0ken"})
        assert (kept.status_code, kept.json()["kept"]) == (201, True)
        assert "max-age" not in kept.headers["set-cookie"].lower()  # the back end is asked how long it is good
        assert (await http.get("/v1/session")).json()["kept"] is True
        async with following(http) as stream:
            await until(stream, b"snapshot")
        asked = len(theirs.received)
        problem(await http.post(f"{OPS}/a/cancel"), 401, "unauthenticated")  # no page of ours is said to ask
        assert (await http.delete("/v1/session", headers={"Sec-Fetch-Site": "same-origin"})).status_code == 204
        assert (await http.get("/v1/session")).json()["kept"] is False
        assert [it["action"] for it in theirs.received[asked:] if it["action"] == "connect"] == []

    async def test_stays_out_of_it_where_there_is_a_better_proof(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        await http.post(f"{OPS}/a/cancel", headers=COOKIE | {"Authorization": "Bearer x"})
        notice = theirs.of("call")[-1]["headers"]
        assert (notice["authorization"], "cookie" in notice) == ("Bearer x", False)


class TestAnApiKey:
    KEY = "pbk_" + "k" * 40

    @pytest.fixture
    def tuning(self, tmp_path: Path) -> dict[str, object]:
        entry = {"name": "worker", "sha256": sha256(self.KEY.encode()).hexdigest(), "grants": EVERYTHING}
        (tmp_path / "keys.json").write_text(json.dumps({"keys": [entry]}))
        return {"api_keys": tmp_path / "keys.json"}

    async def test_is_ours_to_check(self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient) -> None:
        asked, headers = len(theirs.received), {"Authorization": f"Bearer {self.KEY}"}
        assert (await http.get(f"{OPS}/a", headers=headers)).status_code == 200
        async with following(http, **headers) as stream:
            await until(stream, b"snapshot")
        assert len(theirs.received) == asked


class TestARejection:
    @pytest.mark.parametrize("status", [401, 403, None])
    async def test_looks_the_same_whatever_it_was(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient, status: int | None
    ) -> None:
        theirs.decide = lambda _: Response(status_code=status) if status else {"allow": False}
        answer = await http.get(STREAM, headers=EVENT_SOURCE)
        problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert callbacks["connect", "denied"] == 1
        problem(await http.get(f"{OPS}/a", headers=COOKIE), 401, "unauthenticated")
        assert theirs.of("disconnect") == []

    async def test_is_the_answer_to_who_may_not_read(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda _: {"allow": True, "principal": "bob", "scope": "read"}
        problem(await http.get(STREAM, headers=COOKIE), 404, "not-found")
        problem(await http.get(f"{OPS}/a", headers=COOKIE), 404, "not-found")
        await theirs.heard("disconnect")
        theirs.decide = lambda _: {"allow": True, "principal": "alice", "scope": "read"}
        assert (await http.get(f"{OPS}/a", headers={"Cookie": "sid=other"})).status_code == 200


class TestABackEndThatDecidesNothing:
    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"callback_timeout_s": 30, "callback_concurrency": 1}

    @pytest.mark.parametrize(
        ("decided", "outcome"),
        [
            (Response(b"no JSON"), "malformed"),
            (Response(b'{"allow": true}'), "malformed"),
            (Response(b" " * 300_000), "malformed"),
            (Response(b'{"allow": true, "principal": "a"}', status_code=201), "malformed"),
            (Response(status_code=500), "malformed"),
            (Response(status_code=307, headers={"Location": "/hook"}), "malformed"),
            ([], "malformed"),
        ],
    )
    async def test_lets_nobody_in(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient, decided: Any, outcome: str
    ) -> None:
        theirs.decide = lambda _: decided
        answer = await http.get(STREAM)
        problem(answer, 503, "authorizer-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        [message] = sse.read((await http.get(STREAM, headers=EVENT_SOURCE)).content)
        assert (message.type, message.json, message.id) == ("reconnect", {"reason": "authorizer-unavailable"}, "")
        problem(await http.get(f"{OPS}/a", headers=COOKIE), 503, "authorizer-unavailable")
        assert (callbacks["connect", outcome], callbacks["call", outcome]) == (2, 1)
        assert theirs.of("disconnect") == []

    async def test_says_when_to_come_back(self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient) -> None:
        theirs.decide = lambda _: Response(status_code=503, headers={"Retry-After": "20"})
        assert 15 <= int((await http.get(STREAM)).headers["retry-after"]) <= 30


class TestABackEndInTrouble:
    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"callback_timeout_s": 3, "callback_concurrency": 1}

    async def test_that_is_slow_lets_nobody_in_and_holds_nobody_up(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        async with following(http) as stream:
            await until(stream, b"snapshot")
            theirs.gate.clear()
            answers = await asyncio.gather(*(http.get(STREAM) for _ in range(40)))
            for answer in answers:
                problem(answer, 503, "authorizer-unavailable")
            assert (callbacks["connect", "timeout"] > 0, callbacks["connect", "busy"] > 0) == (True, True)
            assert theirs.most <= 2  # one question, and the farewell of another
            assert (await http.get("/livez")).status_code == 200
            theirs.gate.set()
            await publish(http, "a", "log", {"message": "still there"})
            await until(stream, b"still there")

    async def test_that_is_away_lets_nobody_in_until_it_is_back(
        self, callbacks: Any, app: Any, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, theirs: TheirBackend
    ) -> None:
        caplog.set_level(logging.INFO)
        theirs.gate.clear()
        for _ in range(3):
            problem(await http.get(STREAM, headers=COOKIE), 503, "authorizer-unavailable")
        theirs.gate.set()
        async with following(http) as stream:
            await until(stream, b"snapshot")
        first, second = [
            record.message for record in caplog.records if record.name == "progress_server.callback.client"
        ]
        assert "all its callers are rejected: the back end did not answer within 3 s" in first
        assert "answers again" in second
        assert "5ecret" not in caplog.text


async def test_a_back_end_with_another_secret_lets_nobody_in(theirs: TheirBackend, store: Store) -> None:
    other = store.settings.model_copy(update={"callback_secret": SecretStr("whsec_" + "x" * 32)})
    app = create_app(other, store)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http,
    ):
        problem(await http.get(f"{OPS}/a"), 401, "unauthenticated")
    assert (theirs.unverified, theirs.received) == (1, [])


async def test_nobody_is_let_in_where_nothing_listens(store: Store, unused_tcp_port: int) -> None:
    away = store.settings.model_copy(update={"callback_url": f"http://127.0.0.1:{unused_tcp_port}/"})
    app = create_app(away, store)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http,
    ):
        problem(await http.get(f"{OPS}/a"), 503, "authorizer-unavailable")


class TestPolling:
    async def test_costs_the_back_end_one_question_in_a_while(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        for _ in range(10):
            assert (await http.get(f"{OPS}/a", headers=COOKIE)).status_code == 200
            assert (await http.get(OPS, headers=COOKIE)).status_code == 200
        questions = [question for question in theirs.of("call") if "cookie" in question["headers"]]
        assert [set(question) for question in questions] == [{"action", "principal", "client", "headers"}]

    async def test_is_asked_for_each_who_calls(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda question: ALLOW if "alice" in question["headers"]["cookie"] else {"allow": False}
        for _ in range(2):
            assert (await http.get(f"{OPS}/a", headers={"Cookie": "alice"})).status_code == 200
            problem(await http.get(f"{OPS}/a", headers={"Cookie": "mallory"}), 401, "unauthenticated")

    async def test_and_opens_keep_few_connections_to_it(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        for number in range(20):
            await http.get(f"{OPS}/a", headers={"Cookie": str(number)})
        assert len(theirs.of("call")) >= 20
        assert len(theirs.connections) <= 3


class TestFirstEvents:
    @both_outlets
    async def test_come_first_on_that_stream_only_and_move_no_position(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        events = [{"type": "welcome", "data": {"plan": "pro"}}, {"type": "notice", "data": "a\n\nid: 9"}]
        theirs.decide = lambda question: ALLOW | ({"events": events} if "tab=1" in question.get("url", "") else {})
        async with following(http, f"{STREAM}?types=end") as other, following(http, f"{STREAM}?tab=1&types=end") as one:
            await until(other, b"snapshot")
            await finish(http, "a")
            heard = sse.read(b"".join([part async for part in one]))
            assert b"welcome" not in b"".join([part async for part in other])
        assert [message.type for message in heard] == ["welcome", "notice", "snapshot", "end"]
        assert [message.id for message in heard[:2]] == ["", ""]
        assert (heard[0].json["type"], heard[0].json["data"]) == ("welcome", {"plan": "pro"})
        assert heard[1].json["data"] == "a\n\nid: 9"

    async def test_come_through_gzip_too(self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient) -> None:
        theirs.decide = lambda _: ALLOW | {"events": [{"type": "welcome", "data": "x" * 2000}]}
        async with following(http, STREAM, **{"Accept-Encoding": "gzip"}) as stream:
            assert b"welcome" in await until(stream, b"snapshot")


class TestAnIdentifierOfOneStream:
    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"max_streams_per_principal": 1}

    @pytest.mark.parametrize("headers", [{}, EVENT_SOURCE])
    async def test_is_not_taken_by_one_too_many(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"identifier": "tab-7"}
        async with following(http) as live:
            await until(live, b"snapshot")
            answer = await http.get(STREAM, headers=headers)
            assert answer.status_code == (200 if headers else 429)
            assert "too-many-streams" in answer.text
            await theirs.heard("disconnect")
            await publish(http, "a", "log", {"message": "still here"})
            await until(live, b"still here")


class TestAnIdentifier:
    @both_outlets
    async def test_has_its_newest_connection_only(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"identifier": "tab-7"}
        async with following(http) as older:
            await until(older, b"snapshot")
            async with following(http) as newer:
                await until(newer, b"snapshot")
                [message] = [it for it in sse.read(b"".join([part async for part in older])) if it.type == "replaced"]
                assert (message.id, message.json) == ("replaced", {})
                notice = await theirs.heard("disconnect")
                assert (notice["reason"], notice["connection"]) == ("replaced", theirs.of("connect")[0]["connection"])
                again = await http.get(STREAM, headers=EVENT_SOURCE | {"Last-Event-ID": message.id})
                assert again.status_code == 204
                for name in ("lastEventId", "last_event_id"):  # as polyfills say it
                    assert (await http.get(f"{STREAM}?{name}={message.id}")).status_code == 204
                assert len(theirs.of("connect")) == 2  # and was not asked
                await publish(http, "a", "log", {"message": "to the newer"})
                await until(newer, b"to the newer")

    @pytest.mark.parametrize(
        ("method", "url", "headers", "status"),
        [
            ("HEAD", STREAM, {}, 200),
            ("HEAD", "/v1/stream?operation=a", {}, 200),
            ("GET", f"{OPS}/nope/stream", {}, 404),
            ("GET", f"{OPS}/nope/stream", EVENT_SOURCE, 404),
            ("GET", "/v1/stream?operation=nope", {}, 404),
            ("GET", f"{STREAM}?types=%20", {}, 422),
            ("GET", f"{STREAM}?interval_ms=soon", {}, 422),
            ("GET", "/v1/stream", {}, 422),
            ("GET", STREAM, {"Last-Event-ID": "nonsense"}, 422),
            ("GET", f"{OPS}/ended/stream", {"Last-Event-ID": "END"}, 204),
            ("GET", f"{OPS}/a/ws", {}, 426),
        ],
    )
    @both_outlets
    async def test_is_not_taken_by_what_opens_nothing(
        self,
        theirs: TheirBackend,
        callbacks: Any,
        http: httpx.AsyncClient,
        method: str,
        url: str,
        headers: dict[str, str],
        status: int,
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"identifier": "tab-7"}
        await create(http, id="ended")
        await finish(http, "ended")
        end = (await http.get(f"{OPS}/ended")).json()["position"]
        async with following(http) as live:
            await until(live, b"snapshot")
            headers = {name: value.replace("END", end) for name, value in headers.items()}
            assert (await http.request(method, url, headers=headers)).status_code == status
            await theirs.heard("disconnect")
            await publish(http, "a", "log", {"message": "still here"})
            await until(live, b"still here")

    async def test_an_event_source_that_is_replaced_stays_away(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient, base_url: str, tmp_path: Path
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"identifier": "tab-7"}
        with Script(tmp_path / "out", "follow_stream.mjs", base_url + STREAM) as source:
            await eventually(lambda: [it for it in source.lines() if it.get("event") == "snapshot"], "it is connected")
            async with following(http) as newer:
                await until(newer, b"snapshot")
                assert source.popen is not None
                await eventually(lambda: source.popen.poll() is not None, "it gives up for good")  # type: ignore[union-attr]
        assert source.lines()[-1] == {"closed": 204}
        assert len(theirs.of("connect")) == 2

    async def test_is_each_principals_own(self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient) -> None:
        names = iter(["alice", "bob"])
        theirs.decide = lambda _: {"allow": True, "principal": next(names), "grants": EVERYTHING, "identifier": "tab"}
        async with following(http) as alice, following(http) as bob:
            for stream in (alice, bob):
                await until(stream, b"snapshot")
            theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
            async with following(http) as again:
                await until(again, b"snapshot")
                await until(alice, b"replaced")
            theirs.decide = lambda _: ALLOW
            await publish(http, "a", "log", {"message": "to bob"})
            await until(bob, b"to bob")

    @both_outlets
    async def test_may_be_of_a_stream_of_many_operations(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"identifier": "tab", "events": [{"type": "welcome"}]}
        async with following(http, "/v1/stream?operation=a") as older:
            heard = await until(older, b"snapshot")
            assert heard.count(b"event: welcome") == 1
            async with following(http, "/v1/stream?owner=alice") as newer:
                await until(newer, b"snapshot")
                assert sse.read(b"".join([part async for part in older]))[-1].id == "replaced"
                notice = await theirs.heard("disconnect")
                assert (notice["reason"], notice["operation"]) == ("replaced", None)
                again = EVENT_SOURCE | {"Last-Event-ID": "replaced"}
                assert (await http.get("/v1/stream?operation=a", headers=again)).status_code == 204
        assert (await theirs.heard("disconnect", 2))["reason"] == "client"

    async def test_of_many_that_come_at_once_one_stays(
        self, theirs: TheirBackend, callbacks: Any, app: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"identifier": "tab"}
        answers = [http.stream("GET", STREAM) for _ in range(12)]
        opened = await asyncio.gather(*(answer.__aenter__() for answer in answers))
        await eventually(lambda: len(app.state.context.hub) == 1, "one is left")
        await theirs.heard("disconnect", 11)
        newest = max(question["connection"] for question in theirs.of("connect"))
        left = {it["connection"] for it in theirs.of("connect")} - {it["connection"] for it in theirs.of("disconnect")}
        assert len(left) == 1
        assert newest
        assert len(opened) == 12
        for answer in answers:
            await answer.__aexit__(None, None, None)


class TestWhatEnds:
    async def test_after_the_time_it_was_given_comes_back_and_is_asked_again(
        self, theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda _: ALLOW | {"expires_in_s": 1}
        async with following(http) as stream:
            heard = b"".join([part async for part in stream])
        assert b'{"reason":"expired"}' in heard
        assert (await theirs.heard("disconnect"))["reason"] == "expired"
        position = re.findall(rb"^id: (\S+)", heard, re.MULTILINE)[-1].decode()
        async with following(http, **{"Last-Event-ID": position}):
            await theirs.heard("connect", 2)


async def test_secrets_stay_out_of_the_log(
    theirs: TheirBackend, callbacks: Any, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for allow in (True, False):
        theirs.decide = lambda _, allow=allow: ALLOW | {"allow": allow}  # type: ignore[misc]
        await http.get(f"{OPS}/nope/stream", headers=COOKIE | {"Authorization": "Bearer 5ecret"})
        await http.get(f"{OPS}/a", headers={"Authorization": f"Bearer 5ecret{allow}"})
    await theirs.heard("disconnect")
    ours = "\n".join(str(vars(it)) for it in caplog.records if not it.name.startswith(("httpx", "httpcore")))
    assert "5ecret" not in ours
    assert SECRET.removeprefix("whsec_") not in ours
