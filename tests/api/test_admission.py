from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.errors import AtCapacity
from progress_broker.settings import Settings
from progress_server.http.rejections import rejection
from progress_server.limits.admission import BURST_S, LONGEST_S, TokenBucket
from tests import sse
from tests.api.conftest import Clock
from tests.api.proofs import ALICE, bearing, secured, token
from tests.api.test_operations import OPS, create, problem
from tests.conftest import make_settings

EVENT_SOURCE = {"Accept": "text/event-stream"}


def test_a_calm_gate_admits_a_burst_and_then_as_many_as_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    assert [bucket.take() for _ in range(int(10 * BURST_S))] == [0] * int(10 * BURST_S)
    assert bucket.take() > 0
    clock.now += 0.25
    assert [bucket.take() == 0 for _ in range(3)] == [True, True, False]


def test_those_rejected_are_told_turns_of_their_own_at_the_rate() -> None:
    bucket = TokenBucket(10, Clock())
    while not bucket.take():
        pass
    assert [round(bucket.take(), 3) for _ in range(4)] == [0.2, 0.3, 0.4, 0.5]


def test_a_flood_of_rejections_makes_nobody_wait_for_long() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    waits = []
    for _ in range(100_000):
        clock.now += 1e-5
        waits.append(bucket.take())
    assert max(waits) <= LONGEST_S
    assert len({round(wait, 3) for wait in waits[-1000:] if wait}) > 500, "each a moment of its own"


def test_who_comes_back_at_its_turn_is_admitted() -> None:
    clock = Clock()
    bucket = TokenBucket(100, clock)
    turns = sorted(clock.now + wait_s for wait_s in [bucket.take() for _ in range(1000)] if wait_s)
    assert len(turns) == 1000 - 100 * BURST_S < 100 * LONGEST_S
    for turn in turns:
        clock.now = turn
        assert bucket.take() == 0


@given(st.lists(st.floats(0, 0.2), max_size=200), st.integers(1, 50))
def test_in_no_span_of_time_more_are_admitted_than_its_rate_and_a_burst(pauses: list[float], rate: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    admitted: list[float] = []
    for pause in pauses:
        clock.now += pause
        if bucket.take() == 0:
            admitted.append(clock.now)
    for first, begin in enumerate(admitted):
        for last, end in enumerate(admitted[first:], first):
            assert last - first + 1 <= rate * (end - begin) + rate * BURST_S + 1e-6


def test_nobody_is_told_to_come_before_their_turn() -> None:
    for _ in range(200):
        body = bytes(rejection(AtCapacity("full"), "text/event-stream", 1.0004).body)
        assert 1001 <= int(body.split(b"\n")[0].removeprefix(b"retry: ")) <= 1301


@pytest.mark.usefixtures("admission_clock")
class TestAFullGate:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(handshakes_per_s=1)

    async def fill(self, http: httpx.AsyncClient) -> None:
        await create(http, id="a")
        assert (await http.get(f"{OPS}/nope/stream")).status_code == 404  # the only slot

    async def test_tells_an_event_source_when_to_come_back(self, http: httpx.AsyncClient) -> None:
        await self.fill(http)
        answer = await http.get(f"{OPS}/a/stream", headers=EVENT_SOURCE)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
        [message] = sse.read(answer.content)
        assert (message.type, message.json, message.id) == ("reconnect", {"reason": "at-capacity"}, "")
        assert 500 <= int(answer.content.split(b"\n")[0].removeprefix(b"retry: ")) <= 4000

    async def test_tells_others_so_with_a_status(self, http: httpx.AsyncClient) -> None:
        await self.fill(http)
        answer = await http.get(f"{OPS}/a/stream")
        problem(answer, 503, "at-capacity")
        assert 1 <= int(answer.headers["retry-after"]) <= 4

    async def test_lets_everything_else_in(self, http: httpx.AsyncClient) -> None:
        await self.fill(http)
        for _ in range(5):
            assert (await http.get(f"{OPS}/a")).status_code == 200
            assert (await http.get(f"{OPS}/stream")).status_code == 404  # a normal operation id
            assert (await http.get("/livez")).status_code == 200

    async def test_lets_all_in_who_come_when_they_were_told(
        self, http: httpx.AsyncClient, admission_clock: Clock
    ) -> None:
        await self.fill(http)
        rejected = await http.get(f"{OPS}/a/stream", headers=EVENT_SOURCE)
        retry_ms = int(rejected.content.split(b"\n")[0].removeprefix(b"retry: "))
        admission_clock.now += retry_ms / 1000
        async with http.stream("GET", f"{OPS}/a/stream", headers=EVENT_SOURCE) as answer:
            assert b"snapshot" in b"".join([await anext(answer.aiter_bytes())])


@pytest.mark.usefixtures("admission_clock")
class TestStrangers:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return secured(tmp_path, handshakes_per_s=1)

    async def test_take_nobodys_place(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE))
        assert (await http.post(OPS, json={"id": "a"}, headers=alice)).status_code == 201
        for headers in ({}, bearing("nonsense")) * 5:
            assert (await http.get(f"{OPS}/a/stream", headers=headers)).status_code == 401
        async with http.stream("GET", f"{OPS}/a/stream", headers=alice) as answer:
            assert answer.status_code == 200
        problem(await http.get(f"{OPS}/a/stream", headers=alice), 503, "at-capacity")
