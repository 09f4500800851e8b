"""Limits that replicas share, and that each applies alone while Redis is unavailable."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from progress_broker.errors import AtCapacity, TooManyStreams
from progress_broker.limits import limiter as module
from progress_broker.limits.limiter import Limiter
from progress_broker.nodes.calls import Call
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_broker.storage.scripts import HOLD, SPEND
from tests.broker.harness import Timers
from tests.conftest import make_settings
from tests.servers import RealRedis, eventually


@pytest.fixture
def settings() -> Settings:
    return make_settings(
        requests_per_s=10, sent_bytes_per_s=1_000, max_body_bytes=500, max_streams_per_principal=3, stream_lease_s=0.5
    )


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Increase the timeout, so that no replica applies limits alone because the machine is busy."""
    monkeypatch.setattr(module, "TIMEOUT_S", 20)


def settled_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 3600)


class Replicas:
    """Several limiters over one store, as of several replicas; their clocks do not move."""

    def __init__(self, store: Store, number: int) -> None:
        self.store, self.timers = store, Timers()
        self.all = [Limiter(store.settings, Tally(), self.timers.clock) for _ in range(number)]
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> list[Limiter]:
        for one in self.all:
            await self._stack.enter_async_context(one.shared(self.store))
        return self.all

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def taken(limiter: Limiter, who: str = "=ann", tries: int = 100, now: float | None = None) -> int:
    """Spend everything that is available at one moment."""
    assert limiter.requests is not None
    at = limiter.clock() if now is None else now
    return sum(not limiter.requests.take(who, 1, at) for _ in range(tries))


class Stopwatch:
    """The time that has passed: meanwhile the buckets in Redis fill, by Redis' own clock."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    @property
    def s(self) -> float:
        return time.monotonic() - self._begun


class TestRates:
    async def test_replicas_share_one_bucket(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        settled_by_hand(monkeypatch)
        async with Replicas(store, 2) as (one, other):
            assert taken(one) == 20
            since = Stopwatch()
            await one.settle()
            assert taken(other, tries=1) == 1, "it is yet to hear of it"
            await other.settle()
            assert taken(other) <= 10 * since.s
            assert taken(other, "=bob") == 20

    async def test_together_they_let_in_the_rate_and_a_burst_each_at_most(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settled_by_hand(monkeypatch)
        settings = store.settings.model_copy(update={"requests_per_s": 50})
        replicas = [Limiter(settings, Tally()) for _ in range(2)]
        async with AsyncExitStack() as stack:
            for one in replicas:
                await stack.enter_async_context(one.shared(store))
            loop = asyncio.get_running_loop()
            begun = settled = loop.time()
            let_in, apart = 0, 0.0
            while (lasted := loop.time() - begun) < 1.5:
                let_in += sum(taken(one) for one in replicas)
                await asyncio.gather(*(one.settle() for one in replicas))
                apart, settled = max(apart, loop.time() - settled), loop.time()
            assert let_in >= 50 * lasted
            assert let_in <= 50 * lasted + 2 * 100 + 2 * 50 * apart + 10

    async def test_bytes_are_settled_too(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        settled_by_hand(monkeypatch)
        async with Replicas(store, 2) as (one, other):
            assert one.sent is not None
            assert other.sent is not None
            since = Stopwatch()
            one.sent.charge("=ann", 5_000, one.clock())
            await one.settle()
            other.sent.charge("=ann", 1, other.clock())
            await other.settle()
            assert 3 - since.s <= other.sent.wait_s("=ann", 1, other.clock()) <= 3.01

    async def test_a_bucket_is_forgotten_when_it_is_full(self, store: Store) -> None:
        keys = store.keyspace.caller("=ann")
        spend = Call(SPEND, (keys.requests,), ("100000", "1000000"))
        since = Stopwatch()
        first, second = await store.connections.scripts.run_all([spend, spend])
        assert first == pytest.approx(100_000, abs=1)
        assert 200_000 - 1e6 * since.s <= second <= 200_001
        redis: Any = store.connections.commands
        await eventually(lambda: _missing(redis, keys.requests), "it is full")

    async def test_no_debt_is_longer_than_is_said(self, store: Store) -> None:
        key = store.keyspace.caller("=ann").requests
        [lacks_us] = await store.connections.scripts.run_all([Call(SPEND, (key,), ("99000000", "1000000"))])
        assert lacks_us == 1_000_000

    async def test_what_a_foreign_hand_wrote_is_taken_for_a_full_one(self, store: Store) -> None:
        key = store.keyspace.caller("=ann").requests
        await store.connections.commands.set(key, "much", px=5000)
        assert await store.connections.scripts.run_all([Call(SPEND, (key,), ("1000", "1000000"))]) == [1000]


async def _missing(redis: Any, key: str) -> bool:
    return not await redis.exists(key)


class TestStreams:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"stream_lease_s": 3})  # the machine may be busy, so a renewal may be late

    async def test_a_principal_has_so_many_at_all_replicas_together(self, store: Store) -> None:
        async with Replicas(store, 2) as (one, other):
            places = [
                await one.stream_slot("ann", "a"),
                await one.stream_slot("ann", "a"),
                await other.stream_slot("ann", "b"),
            ]
            for limiter in (one, other):
                with pytest.raises(TooManyStreams) as caught:
                    await limiter.stream_slot("ann", "c")
                assert caught.value.retry_s
            await one.stream_slot("bob", "a")
            places.pop().release()
            await eventually(lambda: placed(one, "ann"), "it is free elsewhere")
            places.pop().release()
            assert await placed(one, "ann"), "it is free here at once"

    async def test_a_place_is_given_back_once(self, store: Store) -> None:
        async with Replicas(store, 1) as (one,):
            place = await one.stream_slot("ann", "a")
            await one.stream_slot("ann", "a")
            place.release()
            place.release()
            assert len(one.slots) == 1
            assert [await placed(one, "ann") for _ in range(3)] == [True, True, False]

    async def test_leases_are_renewed(self, store: Store) -> None:
        one, other = Limiter(store.settings, Tally()), Limiter(store.settings, Tally())
        async with one.shared(store), other.shared(store):
            for _ in range(3):
                await one.stream_slot("ann", "a")
            after_s = await lasts_s(store, one) + store.settings.stream_lease_s

            async def renewed() -> bool:
                return await lasts_s(store, one) >= after_s

            await eventually(renewed, "a lease later it lasts")
            assert not await placed(other, "ann")

    async def test_those_of_a_replica_that_died_are_free_after_the_lease(self, store: Store) -> None:
        dead, other = Replicas(store, 2).all
        dead._store = other._store = store  # it does not synchronize, renew or release anything
        for _ in range(3):
            await dead.stream_slot("ann", "a")
        assert not await placed(other, "ann")
        await eventually(lambda: placed(other, "ann"), "they are free")

    async def test_those_of_a_replica_that_ended_are_free_at_once(self, store: Store) -> None:
        async with Replicas(store, 1) as (other,):
            async with Replicas(store, 1) as (ending,):
                places = [await ending.stream_slot("ann", "a") for _ in range(3)]
                for place in places:
                    place.release()
            assert await placed(other, "ann")

    async def test_who_asks_again_and_again_keeps_the_leases_it_has(self, store: Store) -> None:
        one, other = Limiter(store.settings, Tally()), Limiter(store.settings, Tally())
        async with one.shared(store), other.shared(store):
            for _ in range(2):
                await one.stream_slot("ann", "a")
            await other.stream_slot("ann", "a")
            after_s = await lasts_s(store, one) + store.settings.stream_lease_s

            async def renewed() -> bool:
                assert not await placed(one, "ann")
                return await lasts_s(store, one) >= after_s

            await eventually(renewed, "a lease later it lasts")
            assert not await placed(other, "ann")

    async def test_many_who_ask_at_once_get_no_more(self, store: Store) -> None:
        async with Replicas(store, 2) as replicas:
            got = await asyncio.gather(*(placed(one, "ann") for one in replicas for _ in range(10)))
            assert sum(got) == 3

    async def test_a_word_that_was_overtaken_changes_nothing(self, store: Store) -> None:
        key = store.keyspace.caller("ann").streams
        words = [Call(HOLD, (key,), ("r", count, "5000", number)) for count, number in (("1", "2"), ("7", "1"))]
        asked = Call(HOLD, (key,), ("s", "1", "5000", "1", "LIMIT", "2"))
        assert await store.connections.scripts.run_all([*words, asked]) == [[1, 0], [1, 0], [1, 1]]

    async def test_replicas_with_other_leases_share_the_limit(self, store: Store) -> None:
        key = store.keyspace.caller("ann").streams
        long, short = ("r", "2", "600000", "1", "LIMIT", "2"), ("s", "1", "50", "1", "LIMIT", "2")
        asked = [Call(HOLD, (key,), args) for args in (long, short)]
        assert await store.connections.scripts.run_all(asked) == [[1, 0], [0, 2]]
        assert await store.connections.scripts.run_all([Call(HOLD, (key,), ("s", "0", "50", "2"))]) == [[1, 2]]
        assert await store.connections.commands.pttl(key) > 500_000, "the short lease leaves the long one"

    async def test_a_lease_from_a_clock_that_was_ahead_does_not_last(self, store: Store) -> None:
        key = store.keyspace.caller("ann").streams
        await store.connections.commands.hset(key, "r", "9 99999999999999 1")
        assert await store.connections.scripts.run_all([Call(HOLD, (key,), ("s", "1", "5000", "1", "LIMIT", "1"))]) == [
            [1, 0]
        ]

    async def test_who_has_no_name_has_no_limit_but_the_address(self) -> None:
        limiter = Limiter(make_settings(max_streams_per_principal=1, max_streams_per_address=2, max_streams=4), Tally())
        places = [await limiter.stream_slot("", "a") for _ in range(2)]
        with pytest.raises(TooManyStreams):
            await limiter.stream_slot("", "a")
        await limiter.stream_slot("", "b")
        await limiter.stream_slot("", "b")
        with pytest.raises(AtCapacity):
            await limiter.stream_slot("", "c")
        places.pop().release()
        assert await limiter.stream_slot("", "c")


async def lasts_s(store: Store, limiter: Limiter) -> float:
    """Return until when, by Redis' clock, other replicas count Ann's streams at a replica."""
    redis: Any = store.connections.commands
    said = await redis.hget(store.keyspace.caller("ann").streams, limiter._leases.replica)
    return int(said.split()[1]) / 1000 if said else 0


async def placed(limiter: Limiter, principal: str) -> bool:
    try:
        await limiter.stream_slot(principal, "x")
    except TooManyStreams:
        return False
    return True


class TestWithoutRedis:
    @pytest.fixture
    def backend(self) -> str:
        return "fakeredis"

    async def test_a_replica_keeps_the_limits_alone_and_later_together_again(
        self, folder: Path, settings: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "RETRY_S", 0.1)
        tally = Tally()
        with RealRedis(folder / "redis", keep=True) as redis:
            settings = settings.model_copy(update={"redis_url": make_settings(redis_url=redis.url).redis_url})
            one, other = Limiter(settings, tally), Limiter(settings, Tally())
            async with await Store.open(settings) as store, one.shared(store), other.shared(store):
                held = await one.stream_slot("ann", "a")
                await asyncio.to_thread(redis.stop)
                assert await placed(one, "ann"), "it is let in all the same"
                assert [await placed(one, "ann") for _ in range(3)] == [True, False, False]
                now = one.clock()
                assert [taken(one, now=now) for _ in range(2)] == [20, 0]
                assert tally.limiter_mode_changes == {"alone": 1, "together": 0}
                await asyncio.sleep(0.5)  # while it retries
                assert [
                    record.levelname for record in caplog.records if "applies the limits to its own" in record.message
                ] == ["WARNING"]
                await asyncio.to_thread(redis.start)
                await eventually(lambda: tally.limiter_mode_changes["together"], "Redis is back")
                await eventually(lambda: _rejected(other, "ann"), "the others know what is held here")
                held.release()
                await eventually(lambda: placed(other, "ann"), "and what is not")

    async def test_a_redis_that_hangs_keeps_nobody_waiting(
        self, folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import signal

        monkeypatch.setattr(module, "TIMEOUT_S", 0.5)
        with RealRedis(folder / "redis") as redis:
            own = make_settings(redis_url=redis.url, redis_timeout_s=60)  # everything else would wait for this long
            settings = settings.model_copy(update=own.model_dump(include={"redis_url", "redis_timeout_s"}))
            limiter, tally = Limiter(settings, Tally()), Tally()
            limiter._tally = tally
            async with await Store.open(settings) as store, limiter.shared(store):
                redis.send(signal.SIGSTOP)
                try:
                    async with asyncio.timeout(60):
                        for _ in range(3):
                            assert await placed(limiter, "ann")
                        assert not await placed(limiter, "ann")
                finally:
                    redis.send(signal.SIGCONT)
                assert tally.limiter_mode_changes["alone"] == 1
                await eventually(lambda: tally.limiter_mode_changes["together"], "it answers again")

    async def test_a_script_that_redis_has_forgotten_is_taught_again(self, store: Store) -> None:
        await store.connections.commands.script_flush()
        async with Replicas(store, 1) as (one,):
            taken(one, tries=5)
            await one.stream_slot("ann", "a")
            await one.settle()
            assert one._tally.limiter_mode_changes["alone"] == 0


async def _rejected(limiter: Limiter, principal: str) -> bool:
    try:
        place = await limiter.stream_slot(principal, "x")
    except TooManyStreams:
        return True
    place.release()
    return False
