"""The parts that bound the requests to a back end: the queue, the cache of decisions, the notices that wait."""

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import pairwise

import pytest

from progress_broker.errors import AuthorizerUnavailable, RateLimited, Unauthenticated
from progress_broker.model.grants import EVERYTHING
from progress_broker.runtime.tally import Tally
from progress_broker.stream.delivery import ALL
from progress_server.auth.principal import Principal
from progress_server.callback.client import AuthorizerError
from progress_server.callback.connection import NO_CONNECTION, AuthorizedConnection
from progress_server.callback.decision_cache import MAX_ENTRIES, DecisionCache
from progress_server.callback.disconnect_events import MAX_QUEUED, TRIES, DisconnectEvents
from progress_server.callback.fair_queue import LONGEST_S, FairQueue
from progress_server.limits.admission import MAX_ADDRESSES as MOST_ADDRESSES
from progress_server.limits.admission import PerAddressRate
from tests.servers import eventually

ALICE = Principal("alice", EVERYTHING)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestAQueue:
    async def test_serves_so_many_at_a_time_and_all_that_wait(self) -> None:
        queue, now, most = FairQueue("abc", 5), 0, 0

        async def one() -> None:
            nonlocal now, most
            async with queue.slot():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0)
                now -= 1

        await asyncio.gather(*(one() for _ in range(40)))
        assert most == 3

    async def test_rejects_those_who_would_wait_for_long_each_with_a_turn_of_its_own(self) -> None:
        clock = Clock()
        queue = FairQueue("ab", 2.5, clock)
        for _ in range(60):  # it learns that each takes a second
            async with queue.slot():
                clock.now += 1
        leave = asyncio.Event()
        waits: list[float] = []

        async def one() -> None:
            try:
                async with queue.slot():
                    await leave.wait()
            except AuthorizerUnavailable as rejected:
                waits.append(rejected.retry_s or 0)

        tasks = [asyncio.create_task(one()) for _ in range(20)]
        await eventually(lambda: len(waits) >= 13, "some are rejected")
        assert len(waits) <= 14  # two are served, and four or five may wait for two and a half seconds
        apart = [later - earlier for earlier, later in pairwise(waits)]
        assert apart == pytest.approx([0.5] * len(apart), abs=0.01)  # at the rate they are served at
        leave.set()
        await asyncio.gather(*tasks)
        async with queue.slot():
            pass

    async def test_makes_nobody_wait_for_long_or_all_for_the_same_time(self) -> None:
        clock = Clock()
        queue = FairQueue("a", 2.5, clock)
        for _ in range(60):
            async with queue.slot():
                clock.now += 1
        waits = []
        async with queue.slot():
            waiting = [asyncio.create_task(self.enter(queue)) for _ in range(2)]
            await asyncio.sleep(0)
            for _ in range(1000):
                with pytest.raises(AuthorizerUnavailable) as rejected:
                    await self.enter(queue)
                waits.append(rejected.value.retry_s or 0)
        assert max(waits) <= LONGEST_S
        assert len(set(waits[-500:])) > 400
        await asyncio.gather(*waiting)

    @staticmethod
    async def enter(queue: FairQueue[str]) -> None:
        async with queue.slot():
            pass

    async def test_one_who_stops_waiting_leaves_no_trace(self) -> None:
        queue = FairQueue("a", 5)
        async with queue.slot():
            for _ in range(30):  # more than may wait at one moment
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.enter(queue), 0.001)
        await asyncio.wait_for(self.enter(queue), 5)


class TestASharedQueue:
    async def test_serves_one_of_each_address_in_turn(self) -> None:
        queue, served = FairQueue("a", 5, shared=True), list[str]()

        async def one(address: str) -> None:
            async with queue.slot(address):
                served.append(address)

        async with queue.slot("x"):
            tasks = [asyncio.create_task(one(address)) for address in "aaaabbc"]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert "".join(served) == "abcabaa"

    async def test_gives_an_address_half_of_its_places(self) -> None:
        queue, leave, now = FairQueue("abcd", 5, shared=True), asyncio.Event(), Counter[str]()

        async def one(address: str) -> None:
            async with queue.slot(address):
                now[address] += 1
                await leave.wait()

        tasks = [asyncio.create_task(one(address)) for address in "xxxxxyyyz"]
        await asyncio.sleep(0)
        assert now == {"x": 2, "y": 2}
        leave.set()
        await asyncio.gather(*tasks)
        assert now == {"x": 5, "y": 3, "z": 1}

    async def test_rejects_nobody_because_many_wait_of_another_address(self) -> None:
        queue, leave = FairQueue("ab", 5, shared=True), asyncio.Event()

        async def one(address: str) -> None:
            async with queue.slot(address):
                await leave.wait()

        flood = [asyncio.create_task(one("x")) for _ in range(100)]
        await asyncio.sleep(0)
        assert [it for it in flood if it.done()], "there is a bound to them"
        another = [asyncio.create_task(one("y")) for _ in range(2)]
        await asyncio.sleep(0)
        leave.set()
        await asyncio.gather(*another)
        rejected = [it for it in await asyncio.gather(*flood, return_exceptions=True) if it is not None]
        assert {type(it) for it in rejected} == {AuthorizerUnavailable}

    async def test_loses_no_place_whenever_one_leaves_it(self) -> None:
        queue = FairQueue("ab", 5, shared=True)

        async def one(address: str) -> None:
            async with queue.slot(address):
                await asyncio.sleep(0)

        for turns in range(12):
            tasks = [asyncio.create_task(one(address)) for address in "xxyyxy"]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(5), queue.slot("x"), queue.slot("y"):
            pass


class TestTheRateOfAnAddress:
    def test_is_each_addresses_own_and_bounded(self) -> None:
        clock = Clock()
        address_rate = PerAddressRate(1, Tally(), clock)
        for address in ("x", "y"):
            address_rate.check(address)
            with pytest.raises(RateLimited):
                address_rate.check(address)
        for number in range(MOST_ADDRESSES):
            address_rate.check(str(number))
        address_rate.check("x")  # forgotten

    def test_may_be_none(self) -> None:
        address_rate = PerAddressRate(0, Tally(), Clock())
        for _ in range(1000):
            address_rate.check("x")


class TestTheDecisionCache:
    async def test_are_asked_for_once_in_a_while(self) -> None:
        clock, asked = Clock(), 0

        async def ask() -> Principal:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0)
            return ALICE

        decisions = DecisionCache(5, clock)
        assert await asyncio.gather(*(decisions.get(b"k", ask) for _ in range(20))) == [ALICE] * 20
        clock.now += 4.9
        await decisions.get(b"k", ask)
        assert asked == 1
        clock.now += 0.2
        await decisions.get(b"k", ask)
        await decisions.get(b"other", ask)
        assert asked == 3

    async def test_hold_no_longer_than_what_they_are_of(self) -> None:
        clock, asked = Clock(), 0

        async def ask() -> Principal:
            nonlocal asked
            asked += 1
            return Principal("alice", EVERYTHING, clock.now + 1)

        decisions = DecisionCache(5, clock)
        for expected in (1, 2):
            await decisions.get(b"k", ask)
            clock.now += 0.9
            await decisions.get(b"k", ask)
            assert asked == expected
            clock.now += 0.2

    async def test_that_reject_hold_as_long(self) -> None:
        asked = 0

        async def ask() -> Principal:
            nonlocal asked
            asked += 1
            raise Unauthenticated("no")

        decisions = DecisionCache(5, Clock())
        for _ in range(3):
            with pytest.raises(Unauthenticated):
                await decisions.get(b"k", ask)
        assert asked == 1

    async def test_that_could_not_be_had_do_not(self) -> None:
        asked = 0

        async def ask() -> Principal:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise AuthorizerUnavailable("away")
            return ALICE

        decisions = DecisionCache(5, Clock())
        with pytest.raises(AuthorizerUnavailable):
            await decisions.get(b"k", ask)
        assert await decisions.get(b"k", ask) is ALICE

    async def test_are_bounded(self) -> None:
        asked: list[bytes] = []

        async def look(key: bytes) -> None:
            async def ask() -> Principal:
                asked.append(key)
                return ALICE

            await decisions.get(key, ask)

        decisions = DecisionCache(5, Clock())
        for number in range(MAX_ENTRIES + 1):
            await look(b"%d" % number)
        asked.clear()
        await look(b"%d" % MAX_ENTRIES)
        await look(b"0")  # the oldest made room
        assert asked == [b"0"]


class TestDisconnectEvents:
    async def test_are_told_in_the_end_too(self) -> None:
        notified: list[bytes] = []

        async def notify(message_id: str, body: bytes) -> int:
            await asyncio.sleep(0.001)
            notified.append(body)
            return 200

        tally = Tally()
        async with DisconnectEvents(notify, tally) as events:
            for number in range(100):
                events.enqueue(b"%d" % number)
        assert sorted(notified) == sorted(b"%d" % number for number in range(100))
        assert +tally.callbacks == {("disconnect", "sent"): 100}

    @pytest.mark.parametrize(
        ("statuses", "tries", "outcome"),
        [
            ([500, 0, 204], 3, "sent"),
            ([429, 200], 2, "sent"),
            ([404], 1, "failed"),
            ([302], 1, "failed"),
            ([503] * TRIES, TRIES, "failed"),
        ],
    )
    async def test_are_tried_again_while_that_may_help(self, statuses: list[int], tries: int, outcome: str) -> None:
        left, tally = list(statuses), Tally()
        ids: set[str] = set()

        async def notify(message_id: str, body: bytes) -> int:
            ids.add(message_id)
            status = left.pop(0)
            if not status:
                raise AuthorizerError("unreachable", "away")
            return status

        async with DisconnectEvents(notify, tally, pause_s=0.001) as events:
            events.enqueue(b"x")
        assert (len(statuses) - len(left), +tally.callbacks) == (tries, {("disconnect", outcome): 1})
        assert len(ids) == 1  # so that a back end can tell that it is the same one

    async def test_are_dropped_and_counted_when_too_many_wait_or_time_is_up(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("progress_server.callback.disconnect_events.FLUSH_S", 0.05)
        tally = Tally()

        async def notify(message_id: str, body: bytes) -> int:
            await asyncio.Event().wait()
            return 200

        async with DisconnectEvents(notify, tally) as events:
            for _ in range(MAX_QUEUED + 7):
                events.enqueue(b"x")
            assert +tally.callbacks == {("disconnect", "dropped"): 7}
            await asyncio.sleep(0)
        assert +tally.callbacks == {("disconnect", "dropped"): MAX_QUEUED + 7}
        assert str(MAX_QUEUED) in caplog.text


class TestAnAuthorizedConnection:
    def test_ends_once(self) -> None:
        ends: list[str] = []
        authorized = AuthorizedConnection("c", lambda reason, _: ends.append(reason))
        authorized.end("draining")
        authorized.end("client")
        assert ends == ["draining"]

    def test_that_is_replaced_before_it_lasts_makes_way_then(self) -> None:
        made_way: list[bool] = []
        authorized = AuthorizedConnection("c", lambda *_: None)
        authorized.replaced()
        authorized.on_replaced(lambda: made_way.append(True))
        assert made_way == [True]

    def test_where_nobody_is_asked_changes_nothing(self) -> None:
        assert NO_CONNECTION.delivery(ALL) is ALL
