"""Small parts: keys, positions, settings, start-up checks, errors, timers."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker import errors
from progress_broker.model.entry import encode, read_publish_request
from progress_broker.model.position import parse
from progress_broker.routing.slots import hash_slot
from progress_broker.runtime.single_flight import SingleFlight
from progress_broker.runtime.tasks import Tasks, end
from progress_broker.runtime.timer_wheel import TimerWheel
from progress_broker.settings import load_settings
from progress_broker.storage import schema
from progress_broker.storage.keys import Keyspace, lane_tags
from tests.conftest import make_settings
from tests.servers import eventually


class TestKeys:
    # From the Redis Cluster specification: CRC16("123456789") = 0x31C3.
    def test_slots_are_the_clusters(self) -> None:
        assert hash_slot(b"123456789") == 0x31C3

    @given(st.integers(1, 256))
    def test_lanes_spread_evenly_over_the_slots(self, lanes: int) -> None:
        slots = [hash_slot(tag.encode()) for tag in lane_tags("pb", lanes)]
        assert all(abs(slot * lanes / 16384 - (lane + 0.5)) <= 0.52 for lane, slot in enumerate(slots))

    @given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}", fullmatch=True))
    def test_all_keys_of_an_operation_share_a_slot(self, operation: str) -> None:
        keys = Keyspace("pb", 16).operation(operation)
        lane = keys.lane
        every = [keys.snapshot, keys.log, keys.signals, lane.feed, lane.index, lane.expiry, lane.leases]
        tags = {key[key.index("{") + 1 : key.index("}")] for key in [*every, lane.index_of("owner", "{x}")]}
        assert len(tags) == 1


class TestPositions:
    @given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
    def test_canonical_ones_are_read(self, ms: int, seq: int) -> None:
        assert parse(f"{ms}-{seq}") == (ms, seq)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "1",
            "-1",
            "1-",
            "01-0",
            "1-00",
            "1-1-1",
            "$",
            "+",
            "-",
            "1 -1",
            "1-1\n",
            "\u0661-\u0661",
            "abc",
            "18446744073709551616-0",
            "9" * 5000,
        ],
    )
    def test_garbage_is_rejected(self, text: str) -> None:
        with pytest.raises(errors.InvalidInput) as caught:
            parse(text)
        assert len(caught.value.detail) < 200


class TestSettings:
    def test_every_bad_one_is_named_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PROGRESS_PORT", "many")
        monkeypatch.setenv("PROGRESS_LEASE_S", "-1")
        with pytest.raises(errors.SetupError) as caught:
            load_settings()
        assert "PROGRESS_PORT" in caught.value.detail
        assert "PROGRESS_LEASE_S" in caught.value.detail
        assert "\n" not in caught.value.detail

    def test_a_redis_address_has_a_known_scheme_and_its_password_is_not_shown(self) -> None:
        with pytest.raises(errors.SetupError) as caught:
            load_settings(redis_url="http://user:hunter2@host")
        assert "hunter2" not in caught.value.detail
        assert "hunter2" not in repr(load_settings(redis_url="redis://:hunter2@host"))

    def test_they_come_from_a_file_too(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("PROGRESS_PORT=9\n")
        monkeypatch.chdir(tmp_path)
        assert load_settings().port == 9
        assert load_settings(port=10).port == 10

    def test_they_are_read_again_only_after_a_change(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PROGRESS_PORT", "9")
        first = load_settings()
        assert load_settings() is first
        assert load_settings(port=10).port == 10
        assert load_settings() is first
        monkeypatch.setenv("PROGRESS_PORT", "11")
        assert load_settings().port == 11
        monkeypatch.delenv("PROGRESS_PORT")
        for port in (12, 1313):
            (tmp_path / ".env").write_text(f"PROGRESS_PORT={port}\n")
            assert load_settings().port == port
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert load_settings().port == 8000
        monkeypatch.setenv("PROGRESS_PORT", "many")
        for _ in range(2):
            with pytest.raises(errors.SetupError):
                load_settings()


class TestStarting:
    def test_an_evicting_server_is_rejected(self) -> None:
        with pytest.raises(errors.SetupError, match="noeviction"):
            schema.check_server({"redis_version": "7.0.15", "maxmemory_policy": "allkeys-lru"})

    def test_an_old_server_is_rejected(self) -> None:
        with pytest.raises(errors.SetupError, match=r"6\.2"):
            schema.check_server({"redis_version": "6.0.16"})

    def test_a_server_that_tells_nothing_is_believed(self) -> None:
        schema.check_server({})

    def test_other_lanes_another_schema_and_other_tags_are_rejected(self) -> None:
        tags = " ".join(lane_tags("pb", 16)).encode()
        assert schema.read_meta([b"2", b"16", tags], make_settings()).lanes == 16
        for reply, changes, said in (
            ([b"2", b"16", tags], {"lanes": 8}, "set up with 16 lanes"),
            ([b"1", b"16", tags], {}, "schema 1 .* newer and supports only schema 2: use another PROGRESS_PREFIX"),
            ([b"3", None, None], {}, "schema 3 .* older and supports only schema 2: upgrade this program"),
            ([b"9" * 5000, b"16", tags], {}, "another program wrote the schema 9"),
            ([b"\xff", b"16", tags], {}, "another program wrote the schema"),
            ([b"2", b"many", tags], {}, "which another program wrote: use another PROGRESS_PREFIX"),
            ([b"2", b"16", b"a b"], {}, "hash tags"),
        ):
            with pytest.raises(errors.SetupError, match=said):
                schema.read_meta(reply, make_settings(**changes))


class TestErrors:
    def test_the_tree_drawn_is_the_tree(self) -> None:
        drawn = {line.split()[1]: line.split()[2] for line in (errors.__doc__ or "").splitlines() if "──" in line}
        assert drawn == {
            error.__name__: error.code
            for error in errors.BrokerError.__subclasses__()
            if error.__module__ == errors.__name__
        }

    def test_a_rejection_is_the_error_of_its_code(self) -> None:
        assert isinstance(errors.rejection("fenced", "x"), errors.Fenced)


class TestPublications:
    @pytest.mark.parametrize(
        ("value", "field"),
        [
            (None, None),
            ([], None),
            ({}, "type"),
            ({"type": "Progress"}, "type"),
            ({"type": "error", "data": {}}, "type"),
            ({"type": "snapshot", "data": {}}, "type"),
            ({"type": "x", "date": 1}, "date"),
            ({"type": "x", "producer": "p"}, "seq"),
            ({"type": "x", "producer": "p", "seq": 0}, "seq"),
            ({"type": "x", "producer": "p q", "seq": 1}, "producer"),
            ({"type": "progress", "data": 3}, None),
            ({"type": "progress", "data": {"percent": 101}}, "percent"),
            ({"type": "progress", "data": {"current": -1}}, "current"),
            ({"type": "progress", "data": {"current": True}}, "current"),
            ({"type": "progress", "data": {"percent": "50"}}, "percent"),
            ({"type": "log", "data": {"level": "loud", "message": "m"}}, "level"),
            ({"type": "log", "data": {}}, "message"),
            ({"type": "status", "data": {"status": "succeeded"}}, "status"),
            ({"type": "end", "data": {"status": "running"}}, "status"),
        ],
    )
    def test_bad_ones_name_the_field(self, value: object, field: str | None) -> None:
        with pytest.raises(errors.InvalidInput) as caught:
            read_publish_request(value, make_settings())
        assert caught.value.field == field

    def test_unknown_parts_of_progress_pass_through(self) -> None:
        assert (
            encode("progress", {"current": 1, "mine": [1, {"x": None}]}, make_settings()).data
            == b'{"current":1,"mine":[1,{"x":null}]}'
        )

    def test_the_bounds_are_exact(self) -> None:
        settings = make_settings()
        encode("x", "a" * (settings.max_event_bytes - 2), settings)
        encode("progress", {"m": "a" * (settings.max_progress_bytes - 8)}, settings)
        for kind, data in (
            ("x", "a" * (settings.max_event_bytes - 1)),
            ("progress", {"m": "a" * (settings.max_progress_bytes - 7)}),
        ):
            with pytest.raises(errors.TooLarge):
                encode(kind, data, settings)


class Ticker:
    def __init__(self, times: int) -> None:
        self.bucket, self.left, self.at = 0, times, list[float]()

    def tick(self, now: float) -> float | None:
        self.at.append(now)
        self.left -= 1
        return 1.0 if self.left else None


class TestTheWheel:
    async def test_ticks_what_is_due_and_never_early(self) -> None:
        now = 100.0
        wheel = TimerWheel(lambda: now)
        items = [Ticker(1) for _ in range(2000)]
        for i, item in enumerate(items):
            wheel.add(item, i / 1000)
        for step in range(1, 12):
            now = 100 + step * 0.25
            await wheel.turn()
        for i, item in enumerate(items):
            [at] = item.at
            assert 100 + i / 1000 <= at <= 100 + i / 1000 + 0.51
        assert len(wheel) == 0

    async def test_ticks_again_until_told_enough_and_catches_up_after_a_pause(self) -> None:
        now = 0.0
        wheel = TimerWheel(lambda: now)
        item, removed = Ticker(3), Ticker(3)
        wheel.add(item, 1)
        wheel.add(removed, 1)
        wheel.remove(removed)
        for moment in (50.0, 51.5, 53.0, 54.5):
            now = moment
            await wheel.turn()
        assert (len(item.at), removed.at, len(wheel)) == (3, [], 0)

    async def test_one_that_fails_takes_no_other_with_it(self) -> None:
        class Broken:
            bucket = 0

            def tick(self, now: float) -> float | None:
                raise RuntimeError("broken")

        now = 0.0
        wheel = TimerWheel(lambda: now)
        items = [Ticker(1) for _ in range(20)]
        for item in (*items[:10], Broken(), *items[10:]):
            wheel.add(item, 1)
        now = 2.0
        await wheel.turn()
        assert all(item.at for item in items)


class TestFlights:
    async def test_many_share_one_read(self) -> None:
        flights, reads, go = SingleFlight(), 0, asyncio.Event()

        async def read() -> int:
            nonlocal reads
            reads += 1
            await go.wait()
            return 7

        sharing = [asyncio.create_task(flights.share("k", read)) for _ in range(5)]
        await asyncio.sleep(0)
        sharing[0].cancel()
        go.set()
        assert await asyncio.gather(*sharing[1:]) == [7] * 4
        assert (reads, len(flights)) == (1, 0)

    async def test_a_failure_reaches_all_and_is_not_kept(self) -> None:
        flights = SingleFlight()

        async def fail() -> None:
            raise errors.NotFound("no")

        results = await asyncio.gather(*(flights.share("k", fail) for _ in range(3)), return_exceptions=True)
        assert [type(result) for result in results] == [errors.NotFound] * 3
        assert len(flights) == 0


async def test_tasks_that_have_just_ended_hold_up_nobody() -> None:
    """The event loop has not run their callbacks yet, and does not before the owner lets it."""

    async def nothing() -> None: ...

    tasks = Tasks()
    task = tasks.spawn(nothing())
    await asyncio.sleep(0)
    assert task.done()
    await tasks.close()


async def forgetful(forgot: list[bool]) -> None:
    """Go on after the first cancellation."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if forgot:
                raise
            forgot.append(True)


async def test_a_task_that_forgets_a_cancellation_is_ended_all_the_same() -> None:
    forgot: list[bool] = []
    task = asyncio.create_task(forgetful(forgot))
    await asyncio.sleep(0)
    await end(task)
    assert forgot
    assert task.cancelled()


async def test_no_task_outlives_an_owner_that_is_ended_repeatedly() -> None:
    forgot: list[bool] = []

    async def own() -> None:
        owned.append(asyncio.create_task(forgetful(forgot)))
        try:
            await asyncio.sleep(3600)
        finally:
            await end(*owned)

    owned: list[asyncio.Task[None]] = []
    owner = asyncio.create_task(own())
    await eventually(lambda: owned, "it owns a task")
    owner.cancel()
    await eventually(lambda: forgot, "the task has forgotten it")
    owner.cancel()
    await asyncio.wait((owner,))
    assert owner.cancelled()
    assert owned[0].cancelled()
