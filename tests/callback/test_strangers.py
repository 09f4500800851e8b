"""Limits that stand before a question: a stranger can't have a back end asked without bound, nor hold up another."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from progress_broker.limits.limiter import Limiter
from tests.api.test_admission import EVENT_SOURCE
from tests.api.test_operations import OPS, create, problem
from tests.api.test_stream import until
from tests.callback.backend import ALLOW, TheirBackend
from tests.callback.test_streams import STREAM, following
from tests.servers import eventually

DENY = {"allow": False}
FLOOD = 40


def from_(address: str, **headers: str) -> dict[str, str]:
    return {"X-Forwarded-For": address, **headers}


HERE, THERE = from_("203.0.113.9"), from_("198.51.100.7")


@pytest.fixture
async def limiter(app: Any, http: httpx.AsyncClient) -> Limiter:
    """What limits a server that has an operation "a"."""
    await create(http, id="a")
    found: list[Limiter] = [it.kwargs["limiter"] for it in app.user_middleware if "limiter" in it.kwargs]
    return found[0]


class TestAFlood:
    """Of one address, of whom nobody knows who it is."""

    RATE = 5

    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"callback_requests_per_s": self.RATE, "handshakes_per_s": FLOOD}

    def bound(self, began: float) -> float:
        """How many questions may have been asked since: what comes at once, and then the rate."""
        return self.RATE + self.RATE * (time.monotonic() - began)

    async def test_of_streams_costs_so_many_questions_and_no_other_address_anything(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda question: ALLOW if question["client"] == "198.51.100.7" else DENY
        began = time.monotonic()
        answers = await asyncio.gather(*(http.get(STREAM, headers=HERE) for _ in range(FLOOD)))
        asked = len(theirs.of("connect"))
        assert self.RATE <= asked <= self.bound(began)
        rejected = [answer for answer in answers if answer.status_code != 401]
        assert len(rejected) == FLOOD - asked
        for answer in rejected:
            problem(answer, 429, "rate-limited")
            assert int(answer.headers["retry-after"]) >= 1
        assert len({it.headers["retry-after"] for it in rejected}) > 2, "they don't come back at one moment"
        async with following(http, **THERE) as stream:  # the replica's rate of new streams is not used up by them
            await until(stream, b"snapshot")

    async def test_of_event_sources_is_told_to_come_back(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        theirs.decide = lambda _: DENY
        answers = await asyncio.gather(*(http.get(STREAM, headers=HERE | EVENT_SOURCE) for _ in range(FLOOD)))
        assert b'{"reason":"rate-limited"}' in b"".join(answer.content for answer in answers)
        assert {answer.status_code for answer in answers} == {200, 401}

    async def test_of_sockets_is_told_to_come_back(self, theirs: TheirBackend, limiter: Limiter, base_url: str) -> None:
        theirs.decide = lambda _: DENY
        url, began = f"{base_url.replace('http', 'ws')}/v1/ws", time.monotonic()

        async def told() -> str:
            async with connect(url, additional_headers=HERE) as socket:
                message = json.loads(await socket.recv())
                return str(message["problem"]["type"] if "problem" in message else message["type"])

        codes = await asyncio.gather(*(told() for _ in range(FLOOD)))
        assert set(codes) == {"unauthenticated", "rate-limited"}
        assert len(theirs.of("connect")) <= self.bound(began)

    async def test_of_calls_costs_so_many_and_who_is_known_is_served_beside_it(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        alice = HERE | {"Cookie": "sid=alice"}
        assert (await http.get(f"{OPS}/a", headers=alice)).status_code == 200
        theirs.decide, before, began = lambda _: DENY, len(theirs.of("call")), time.monotonic()
        calls = (http.get(f"{OPS}/a", headers=HERE | {"Cookie": f"sid={number}"}) for number in range(FLOOD))
        answers = await asyncio.gather(*calls)
        assert len(theirs.of("call")) - before <= self.bound(began)
        for answer in answers:
            assert answer.status_code in (401, 429)
        assert (await http.get(f"{OPS}/a", headers=alice)).status_code == 200
        theirs.decide = lambda _: ALLOW
        assert (await http.get(f"{OPS}/a", headers=THERE)).status_code == 200

    async def test_of_what_is_no_stream_but_looks_like_one_costs_no_more(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        began, before = time.monotonic(), len(theirs.received)
        theirs.decide = lambda _: DENY
        for path in ("/x/v1/stream", "/x/v1/operations/a/stream"):
            await asyncio.gather(*(http.get(path, headers=HERE | {"Cookie": f"{it}"}) for it in range(FLOOD)))
        assert len(theirs.received) - before <= self.bound(began)


class TestPlaces:
    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"max_streams_per_address": 2, "max_streams": 3, "callback_timeout_s": 30}

    async def test_are_had_before_the_question(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient, app: Any
    ) -> None:
        theirs.gate.clear()
        here = [asyncio.create_task(http.get(STREAM, headers=HERE)) for _ in range(6)]
        await eventually(lambda: sum(it.done() for it in here) == 4, "all but two are rejected")
        for task in here:
            if task.done():
                problem(task.result(), 429, "too-many-streams")
        async with asyncio.TaskGroup() as group:
            there = group.create_task(http.get(f"{OPS}/nope/stream", headers=THERE))
            await theirs.heard("connect", 3)
            problem(await http.get(STREAM, headers=from_("192.0.2.1")), 503, "at-capacity")
            assert len(theirs.of("connect")) == 3
            theirs.decide = lambda _: DENY
            theirs.gate.set()
        problem(there.result(), 401, "unauthenticated")
        for task in here:
            assert (await task).status_code in (401, 429)
        assert len(limiter.slots) == 0

    async def test_are_kept_by_streams_and_given_back_in_the_end(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        async with following(http, **HERE) as one, following(http, **HERE) as two:
            for stream in (one, two):
                await until(stream, b"snapshot")
            assert len(limiter.slots) == 2
            problem(await http.get(STREAM, headers=HERE), 429, "too-many-streams")
        await eventually(lambda: len(limiter.slots) == 0, "they are given back")
        assert len(theirs.of("connect")) == 2

    async def test_are_had_by_long_polls_too(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        poll = f"{OPS}/a/events?wait=0.2"
        assert (await http.get(poll, headers=HERE)).status_code == 200
        assert len(limiter.slots) == 0


class TestABackEndThatHangs:
    @pytest.fixture
    def tuning(self) -> dict[str, object]:
        return {"callback_concurrency": 4, "callback_timeout_s": 30}

    async def test_for_one_address_is_asked_for_another(
        self, theirs: TheirBackend, limiter: Limiter, http: httpx.AsyncClient
    ) -> None:
        hang = asyncio.Event()

        async def decide(question: dict[str, Any]) -> Any:
            if question["client"] == "203.0.113.9":
                await hang.wait()
                return DENY
            return ALLOW

        theirs.decide = decide
        flood = [asyncio.create_task(http.get(STREAM, headers=HERE)) for _ in range(FLOOD)]
        await theirs.heard("connect", 2)
        async with following(http, **THERE) as stream:
            await until(stream, b"snapshot")
        assert len([it for it in theirs.of("connect") if it["client"] == "203.0.113.9"]) == 2, "half of the places"
        hang.set()
        for answer in await asyncio.gather(*flood):
            assert answer.status_code in (401, 503)
