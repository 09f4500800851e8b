"""Back ends that answer what no server should: nobody is let in, nothing is left, and the next question is asked."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest
from standardwebhooks import Webhook
from starlette.responses import Response

from progress_broker.settings import Settings
from tests.api.test_operations import OPS, create, problem
from tests.api.test_stream import until
from tests.callback.backend import ALLOW, SECRET, TheirBackend
from tests.callback.test_streams import COOKIE, STREAM, following
from tests.conftest import make_settings
from tests.servers import eventually

TIMEOUT_S = 2.0
GOOD = orjson.dumps(ALLOW)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(GOOD), GOOD)

HEAD = b"HTTP/1.1 200 OK\r\n"
LATER = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\nRetry-After: " + b"9" * 400 + b"\r\n\r\n"


class RawBackend:
    """Answers each question with bytes, and then with more of them for as long as somebody reads."""

    def __init__(self) -> None:
        self.says, self.then, self.closes = OK, b"", False
        self.cuts = 0
        """So many questions are not answered at first: the connection is closed instead."""
        self.questions: list[tuple[dict[str, str], bytes]] = []
        """Headers and body of each."""
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = headers_in(head)
                body = await reader.readexactly(int(headers["content-length"]))
                self.questions.append((headers, body))
                if self.cuts:
                    self.cuts -= 1
                    break
                writer.write(self.says)
                while self.then:
                    writer.write(self.then)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def headers_in(head: bytes) -> dict[str, str]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:-2])
    return {name.decode().lower(): value.strip().decode() for name, _, value in lines}


@pytest.fixture
async def raw() -> AsyncIterator[tuple[RawBackend, str]]:
    theirs = RawBackend()
    server = await asyncio.start_server(theirs.serve, "127.0.0.1", 0)
    yield theirs, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    theirs.then, theirs.closes = b"", True
    server.close()


class TestBytes:
    @pytest.fixture
    def settings(self, raw: tuple[RawBackend, str]) -> Settings:
        return make_settings(
            auth="callback",
            callback_url=raw[1],
            callback_secret=SECRET,
            callback_timeout_s=TIMEOUT_S,
            callback_concurrency=1,
        )

    @pytest.mark.parametrize(
        ("says", "then", "closes"),
        [
            pytest.param(b"", b"", True, id="nothing"),
            pytest.param(b"", b"", False, id="silence"),
            pytest.param(b"what?\r\n\r\n", b"", True, id="no HTTP"),
            pytest.param(OK[:-10], b"", True, id="half an answer"),
            pytest.param(OK[:-10], b"", False, id="half an answer, and silence"),
            pytest.param(HEAD + b"Content-Length: 999999\r\n\r\n", b" ", False, id="dripping"),
            pytest.param(HEAD, b"X-More: and more\r\n", False, id="headers without end"),
            pytest.param(HEAD + b"X: ", b"x" * 65_536, False, id="a header without end"),
            pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", False, id="continue, continue"),
            pytest.param(HEAD + b"\r\n", b" " * 65_536, False, id="a body without end"),
            pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"", False, id="no chunks"),
            pytest.param(b"HTTP/1.1 101 Now\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"", False, id="upgrade"),
            pytest.param(HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", b"", False, id="gzip"),
            pytest.param(b"HTTP/1.1 204 None\r\n\r\n", b"", False, id="no content"),
            pytest.param(LATER, b"", False, id="much later"),
        ],
    )
    async def test_that_are_no_answer_let_nobody_in(
        self,
        raw: tuple[RawBackend, str],
        app: Any,
        http: httpx.AsyncClient,
        caplog: pytest.LogCaptureFixture,
        says: bytes,
        then: bytes,
        closes: bool,
    ) -> None:
        theirs, _ = raw
        theirs.says, theirs.then, theirs.closes = says, then, closes
        answer = await http.get(f"{OPS}/a/stream")
        problem(answer, 503, "authorizer-unavailable")
        assert int(answer.headers["retry-after"]) <= 40
        problem(await http.get(f"{OPS}/a", headers=COOKIE), 503, "authorizer-unavailable")
        theirs.says, theirs.then, theirs.closes = OK, b"", False
        assert (await http.get(f"{OPS}/a/stream")).status_code == 404
        assert not [it for it in caplog.records if it.levelno >= logging.ERROR]

    async def test_that_a_cut_connection_lost_are_asked_for_again_under_the_same_id(
        self, raw: tuple[RawBackend, str], http: httpx.AsyncClient
    ) -> None:
        theirs, _ = raw
        theirs.cuts = 1
        assert (await http.get(f"{OPS}/a/stream")).status_code == 404
        await eventually(lambda: len(theirs.questions) == 3, "the disconnect is told")
        first, again, disconnect = theirs.questions
        assert (first[0]["webhook-id"], first[1]) == (again[0]["webhook-id"], again[1])
        assert disconnect[0]["webhook-id"] != again[0]["webhook-id"]
        for headers, body in theirs.questions:
            Webhook(SECRET).verify(body, headers)


class TestAnAnswer:
    async def test_that_is_nested_too_deeply_to_be_said_again_lets_nobody_in(
        self, theirs: TheirBackend, http: httpx.AsyncClient
    ) -> None:
        deep = b"[" * 400 + b"]" * 400
        body = b'{"allow": true, "principal": "a", "events": [{"type": "hi", "data": %b}]}' % deep
        theirs.decide = lambda _: Response(body)
        problem(await http.get(STREAM), 503, "authorizer-unavailable")

    async def test_that_sets_a_cookie_does_not_get_it_back_with_a_question_about_another(
        self, theirs: TheirBackend, http: httpx.AsyncClient
    ) -> None:
        def decide(_: Any) -> Response:
            response = Response(GOOD)
            response.set_cookie("session", "of-the-first")
            return response

        theirs.decide = decide
        for number in range(3):
            assert (await http.get(OPS, headers={"Cookie": f"sid={number}"})).status_code == 200
        assert theirs.cookies == []


async def test_a_restart_of_the_back_end_rejects_nobody_once_it_is_back(
    theirs: TheirBackend, http: httpx.AsyncClient
) -> None:
    await create(http, id="a")
    async with following(http) as stream:
        await until(stream, b"snapshot")
        again = TheirBackend()
        port = int(theirs.url.split(":")[2].split("/")[0])
        await theirs.stop()
        problem(await http.get(f"{OPS}/a", headers=COOKIE), 503, "authorizer-unavailable")
        async with again.serving(port):
            async with following(http) as other:
                await until(other, b"snapshot")
            assert (await http.get(f"{OPS}/a", headers=COOKIE)).status_code == 200
            await again.heard("disconnect")


class TestADrain:
    async def test_while_it_is_asked_lets_nobody_in_and_tells_the_end(
        self, theirs: TheirBackend, app: Any, http: httpx.AsyncClient
    ) -> None:
        await create(http, id="a")
        theirs.gate.clear()
        asking = asyncio.create_task(http.get(STREAM))
        asked = await theirs.heard("connect")
        app.state.context.hub.drain()
        theirs.gate.set()
        problem(await asking, 503, "draining")
        notice = await theirs.heard("disconnect")
        assert (notice["connection"], notice["reason"]) == (asked["connection"], "rejected")
