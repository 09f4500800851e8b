"""Clients that leave before it was found out who they are: nothing is asked for them any more, and nothing is left."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.raw import Client, request
from tests.api.test_operations import OPS, create
from tests.api.test_stream import until
from tests.callback.backend import ALLOW, TheirBackend
from tests.callback.test_streams import STREAM, both_outlets, following
from tests.servers import eventually

SOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
CONNECTIONS = [
    pytest.param(request(STREAM), id="stream"),
    pytest.param(request("/v1/stream?operation=a"), id="many"),
    pytest.param(request(f"{OPS}/a/ws", *SOCKET), id="socket"),
]


@pytest.fixture
def tuning() -> dict[str, object]:
    return {"callback_concurrency": 1, "callback_timeout_s": 30}


@pytest.fixture
async def hub(app: Any, http: httpx.AsyncClient, theirs: TheirBackend) -> Any:
    """That of a server that has an operation "a"."""
    await create(http, id="a")
    theirs.received.clear()
    return app.state.context.hub


async def gone(hub: Any, times: int = 1) -> None:
    """Wait until requests have ended without an answer."""
    counts = hub.tally.requests.counts
    await eventually(lambda: sum(counts[key] for key in counts if key[2] == "4xx") >= times, "it was seen to leave")


def message(text: bytes) -> bytes:
    """Return a WebSocket's message (RFC 6455, 5.2)."""
    return b"\x81\xff" + len(text).to_bytes(8, "big") + bytes(4) + text


class TestInTheQueue:
    @both_outlets
    @pytest.mark.parametrize("said", [*CONNECTIONS, pytest.param(request(f"{OPS}/a", "Cookie: sid=2"), id="call")])
    async def test_nothing_is_asked(
        self, theirs: TheirBackend, hub: Any, http: httpx.AsyncClient, base_url: str, said: bytes
    ) -> None:
        theirs.gate.clear()
        first = asyncio.create_task(http.get(f"{OPS}/nope/stream"))
        await theirs.heard("connect")
        leaver = await Client.connect(base_url)
        leaver.send(said)
        await asyncio.sleep(0.05)  # so that it stands in the line; were it not there, nothing would be asked either
        leaver.close()
        await gone(hub)
        theirs.gate.set()
        assert (await first).status_code == 404
        await theirs.heard("disconnect")
        assert (await http.get(f"{OPS}/nope/stream")).status_code == 404
        assert [it["action"] for it in theirs.received if it["action"] != "disconnect"] == ["connect", "connect"]
        assert theirs.of("connect")[-1]["url"] == f"{OPS}/nope/stream"
        assert len(hub) == 0

    async def test_another_of_the_same_asks_instead(
        self, theirs: TheirBackend, hub: Any, http: httpx.AsyncClient, base_url: str
    ) -> None:
        theirs.gate.clear()
        first = asyncio.create_task(http.get(f"{OPS}/nope/stream"))
        await theirs.heard("connect")
        leaver = await Client.connect(base_url)
        leaver.send(request(f"{OPS}/a", "Cookie: sid=2", "User-Agent: x"))
        await asyncio.sleep(0.05)
        same = {"Cookie": "sid=2", "User-Agent": "x"}
        others = [asyncio.create_task(http.get(f"{OPS}/a", headers=same)) for _ in range(3)]
        await asyncio.sleep(0.05)
        leaver.close()
        await gone(hub)
        theirs.gate.set()
        assert [(await other).status_code for other in others] == [200] * 3
        assert len(theirs.of("call")) == 1
        await first

    async def test_a_call_with_a_body_keeps_it(
        self, theirs: TheirBackend, hub: Any, http: httpx.AsyncClient, base_url: str
    ) -> None:
        theirs.gate.clear()
        first = asyncio.create_task(http.get(f"{OPS}/nope/stream"))
        await theirs.heard("connect")
        client = await Client.connect(base_url)
        body = b'{"id": "b", "title": "all of it"}'
        client.send(request(OPS, f"Content-Length: {len(body)}", "Content-Type: application/json", method="POST"))
        client.send(body[:9])
        await asyncio.sleep(0.05)
        theirs.gate.set()
        await first
        client.send(body[9:])
        status, notice = await client.answer()
        assert (status, b"all of it" in notice) == (201, True)
        client.close()

    async def test_who_stays_is_served(self, theirs: TheirBackend, hub: Any, http: httpx.AsyncClient) -> None:
        theirs.gate.clear()
        first = asyncio.create_task(http.get(f"{OPS}/nope/stream"))
        await theirs.heard("connect")

        async def followed() -> None:
            async with following(http) as stream:
                await until(stream, b"snapshot")

        waiting = [asyncio.create_task(followed()) for _ in range(5)]
        await asyncio.sleep(0.05)
        theirs.gate.set()
        await asyncio.gather(first, *waiting)


class TestWhileAsked:
    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"callback_concurrency": 4, "callback_timeout_s": 30}

    @both_outlets
    @pytest.mark.parametrize("said", CONNECTIONS)
    async def test_its_end_is_told(
        self, theirs: TheirBackend, hub: Any, http: httpx.AsyncClient, base_url: str, said: bytes
    ) -> None:
        theirs.gate.clear()
        leaver = await Client.connect(base_url)
        leaver.send(said)
        asked = await theirs.heard("connect")
        leaver.close()
        await asyncio.sleep(0.05)
        theirs.gate.set()
        notice = await theirs.heard("disconnect")
        assert (notice["connection"], notice["reason"], notice["principal"]) == (asked["connection"], "client", "alice")
        await gone(hub)
        assert len(hub) == 0
        assert len(hub.connections) == 0

    async def test_a_socket_is_not_read_on(
        self, theirs: TheirBackend, hub: Any, http: httpx.AsyncClient, base_url: str
    ) -> None:
        theirs.gate.clear()
        talker = await Client.connect(base_url)
        talker.send(request(f"{OPS}/a/ws", *SOCKET))
        await theirs.heard("connect")
        talker.send(message(b'{"type": "ping", "ref": "early"}'))
        talker.send(message(bytes(60_000)) * 1_000)  # more than kernels hold
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talker.writer.drain(), 2)
        theirs.gate.set()
        async with asyncio.timeout(60):
            await talker.reader.readuntil(b'"ref":"early"')
        talker.reset()

    @pytest.mark.parametrize("said", CONNECTIONS)
    async def test_one_that_is_rejected_breaks_nothing(
        self, theirs: TheirBackend, hub: Any, base_url: str, caplog: pytest.LogCaptureFixture, said: bytes
    ) -> None:
        theirs.gate.clear()
        theirs.decide = lambda _: {"allow": False}
        leaver = await Client.connect(base_url)
        leaver.send(said)
        await theirs.heard("connect")
        leaver.close()
        await asyncio.sleep(0.05)
        theirs.gate.set()
        await eventually(lambda: hub.tally.callbacks["connect", "denied"] == 1, "it is rejected")
        await asyncio.sleep(0.05)
        assert [it.message for it in caplog.records if it.levelname == "ERROR"] == []

    async def test_it_does_not_take_the_place_of_one_that_is_there(
        self, theirs: TheirBackend, app: Any, hub: Any, http: httpx.AsyncClient, base_url: str
    ) -> None:
        answers = asyncio.Event()

        async def decide(question: dict[str, Any]) -> Any:
            if "slow" in question.get("url", ""):
                await answers.wait()
            return ALLOW | {"identifier": "tab"}

        theirs.decide = decide
        reloaded = await Client.connect(base_url)
        reloaded.send(request(f"{STREAM}?slow=1", "X-Forwarded-For: 203.0.113.9"))
        await theirs.heard("connect")
        reloaded.close()
        await asyncio.sleep(0.05)
        async with following(http, **{"X-Forwarded-For": "203.0.113.9"}) as stream:
            await until(stream, b"snapshot")
            answers.set()
            assert (await theirs.heard("disconnect"))["reason"] == "client"
            async with following(http, f"{STREAM}?next=1") as newer:
                await until(newer, b"snapshot")
                await until(stream, b"event: replaced")
                await theirs.heard("disconnect", 2)
                assert [it["reason"] for it in theirs.of("disconnect")] == ["client", "replaced"]
