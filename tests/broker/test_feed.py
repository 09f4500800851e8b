"""The feed reader: its read interval with a test clock, and its connection's faults, on both backends."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
import redis.exceptions
from redis.exceptions import AskError, MovedError

from progress_broker.history.losses import Loss
from progress_broker.live.feeds.batch import Batch
from progress_broker.live.feeds.connection import MOVING_S
from progress_broker.live.feeds.landmarks import EACH, LEVELS, Landmarks
from progress_broker.live.feeds.pace import READ_EVERY_S, RECENT_S, SLOWEST_S, Pace
from progress_broker.live.feeds.reader import COUNT, LATE_S, MOVES, FeedReader
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.model.position import order
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks, end
from progress_broker.storage.connections import Reader
from progress_broker.storage.keys import Keyspace
from tests.servers import eventually

KEYSPACE = Keyspace("pb", 2)
LANES = (0, 1)


class Redis:
    """A double for a connection and what makes it. It gives prepared replies, and records what a reader does."""

    def __init__(self) -> None:
        self.now, self.socket_timeout = 100.0, None
        self.did: list[str] = []
        self.waits: list[float] = []
        self.replies: list[Callable[[], Any]] = []
        self.looked_up: list[bytes] = []

    def reader(self) -> FeedReader:
        return FeedReader(Reader(LANES, self._connect, self._release), KEYSPACE, lambda: self.now, self._sleep)

    def answer(self, *positions: str, after_s: float = 0.0) -> None:
        """Answer the next XREAD with one event at each position, after a while."""

        def reply() -> Any:
            self.now += after_s
            entries = [[at.encode(), [b"o", b"a", b"n", b"1", b"t", b"log", b"d", b"{}"]] for at in positions]
            return [[KEYSPACE.lane(0).feed.encode(), entries]] if entries else None

        self.replies.append(reply)

    def fail(self, error: Exception) -> None:
        """Answer the next XREAD with an error."""

        def reply() -> Any:
            raise error

        self.replies.append(reply)

    async def send_packed_command(self, command: bytes, check_health: bool) -> None:
        self.sent = command.split(b"\r\n")[2::2]
        self.did.append(self.sent[0].decode())

    async def disconnect(self, *, nowait: bool) -> None:
        self.did.append("disconnect")

    async def read_response(self) -> Any:
        match self.sent[0]:
            case b"XREAD":
                return self.replies.pop(0)()
            case b"XLEN":
                return 9
            case _:
                return self.looked_up

    async def _connect(self) -> "Redis":
        self.did.append("connect")
        return self

    async def _release(self, _: "Redis") -> None:
        self.did.append("release")

    async def _sleep(self, seconds: float) -> None:
        self.did.append("wait")
        self.waits.append(seconds)
        self.now += seconds


async def begun(redis: Redis) -> AsyncIterator[Batch]:
    batches = redis.reader().batches()
    assert (await anext(batches)).resync == LANES
    assert redis.did == ["connect", "XREVRANGE", "XREVRANGE"]
    redis.did.clear()
    return batches


async def test_under_load_there_is_a_least_time_between_two_reads() -> None:
    redis = Redis()
    batches = await begun(redis)
    for position in ("1-0", "2-0", "3-0"):
        redis.answer(position)
        await anext(batches)
    assert redis.did == ["XREAD", "wait", "XREAD", "wait", "XREAD"]
    assert redis.waits == pytest.approx([READ_EVERY_S] * 2)


def test_readers_with_news_share_the_pace() -> None:
    """They all read at the same time, the less often the more of them have news."""
    shared: list[Pace] = []
    paces, began = [Pace(shared) for _ in range(16)], 100.0
    for busy in range(17):
        every_s = min(SLOWEST_S, max(1, busy) * READ_EVERY_S)
        read_at = every_s * math.ceil(began / every_s)
        answered_at = [read_at + every_s * place / 24 for place in range(16)]
        for place, (pace, at) in enumerate(zip(paces, answered_at, strict=True)):
            pace.read(at, news=place < busy)
        next_reads = [at + pace.early_s(at) for pace, at in zip(paces, answered_at, strict=True)]
        assert next_reads == pytest.approx([read_at + every_s] * 16)
        began += 2 * RECENT_S
    alone = Pace()
    alone.read(began, news=True)
    assert alone.early_s(began) == pytest.approx(READ_EVERY_S)


def test_a_timer_that_is_early_has_no_reader_read_twice() -> None:
    shared: list[Pace] = []
    pace, _ = Pace(shared), Pace(shared)
    tick = READ_EVERY_S * 50_000
    pace.read(tick - READ_EVERY_S / 5, news=True)
    assert pace.early_s(tick) == pytest.approx(READ_EVERY_S)


async def test_the_time_that_handing_on_takes_is_part_of_it() -> None:
    redis = Redis()
    batches = await begun(redis)
    redis.answer("1-0")
    await anext(batches)
    redis.now += READ_EVERY_S / 2
    redis.answer("2-0")
    await anext(batches)
    assert redis.waits == pytest.approx([READ_EVERY_S / 2])
    redis.now += READ_EVERY_S * 2
    redis.answer("3-0")
    await anext(batches)
    assert len(redis.waits) == 1


async def test_what_comes_after_a_silence_does_not_wait() -> None:
    redis = Redis()
    batches = await begun(redis)
    redis.answer(after_s=2)
    redis.answer("1-0", after_s=1)
    assert (await anext(batches)).events == []
    redis.did.clear()
    event = (await anext(batches)).events[0]
    assert (event.position, redis.did) == (b"1-0", ["wait", "XREAD"]), "the wait is before the read, not after it"
    redis.now += LATE_S
    redis.did.clear()
    redis.answer("2-0")
    await anext(batches)
    assert redis.did == ["XREAD"]


async def test_each_read_goes_on_from_the_last_entry_of_each_feed() -> None:
    redis = Redis()
    batches = await begun(redis)
    redis.answer("1-0", "1-1")
    await anext(batches)
    redis.answer()
    await anext(batches)
    feeds = [KEYSPACE.lane(lane).feed.encode() for lane in LANES]
    assert redis.sent == [b"XREAD", b"COUNT", b"%d" % COUNT, b"BLOCK", b"2000", b"STREAMS", *feeds, b"1-1", b"0-0"]


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("closed"),
        redis.exceptions.TimeoutError("no answer"),
        redis.exceptions.ResponseError("UNBLOCKED force unblock"),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_after_a_fault_it_begins_anew_with_a_resync(error: Exception) -> None:
    redis = Redis()
    reader = redis.reader()
    batches = reader.batches()
    await anext(batches)
    redis.fail(error)
    redis.did.clear()
    assert (await anext(batches)).resync == LANES
    again = ["disconnect", "release", "wait", "connect"]
    assert (redis.did, reader.connected) == (["XREAD", *again, "XREVRANGE", "XREVRANGE"], True)
    redis.answer("5-0")
    assert [event.position for event in (await anext(batches)).events] == [b"5-0"]


@pytest.mark.parametrize("kept", [True, False])
async def test_after_a_move_it_goes_on_where_it_was_if_the_new_server_has_what_it_read(kept: bool) -> None:
    """Some servers say also after a failover that the feed has moved, and then history may be lost."""
    redis = Redis()
    reader = redis.reader()
    batches = reader.batches()
    await anext(batches)
    redis.answer("5-0")
    await anext(batches)
    redis.fail(MovedError("1 127.0.0.1:7001"))
    redis.looked_up = [b"5-0"] if kept else []
    redis.answer("6-0")
    redis.did.clear()
    batch = await anext(batches)
    again = ["wait", "XREAD", "disconnect", "release", "connect", "XRANGE"]
    if kept:
        assert redis.did == [*again, "XREAD"]
        assert ([event.position for event in batch.events], batch.resync) == ([b"6-0"], ())
    else:
        assert redis.did[:6] == again
        assert batch.resync == LANES
        assert [event.position for event in (await anext(batches)).events] == [b"6-0"]
    assert (reader.interruptions, reader.moves) == (0, 1)


async def test_feeds_that_move_on_at_once_are_followed_without_an_interruption() -> None:
    redis = Redis()
    reader = redis.reader()
    batches = reader.batches()
    await anext(batches)
    for _ in range(MOVES):
        redis.fail(MovedError("1 127.0.0.1:7001"))
    redis.answer("6-0")
    assert [event.position for event in (await anext(batches)).events] == [b"6-0"]
    assert (reader.interruptions, reader.moves) == (0, MOVES)


async def test_while_its_slot_moves_it_asks_again_and_nothing_is_interrupted() -> None:
    redis = Redis()
    reader = redis.reader()
    batches = reader.batches()
    await anext(batches)
    for _ in range(3):
        redis.fail(AskError("1 127.0.0.1:7001"))
    redis.fail(MovedError("1 127.0.0.1:7001"))
    redis.answer("6-0")
    redis.did.clear()
    assert [event.position for event in (await anext(batches)).events] == [b"6-0"]
    assert redis.did == [*(["XREAD", "wait"] * 3), "XREAD", "disconnect", "release", "connect", "XREAD"]
    assert (redis.waits[-3:], reader.interruptions, reader.moves) == ([MOVING_S] * 3, 0, 1)


def connected(store: Store, lane: int) -> Reader:
    """Return what reads a lane: with all others, or alone."""
    return next(reader for reader in store.connections.readers(store.keyspace) if lane in reader.lanes)


def reader_of(store: Store) -> FeedReader:
    return FeedReader(connected(store, store.keyspace.lane_of("a")), store.keyspace)


async def follow(reader: FeedReader, numbers: list[int]) -> None:
    async for batch in reader.batches():
        numbers += [event.n for event in batch.events]


async def test_a_read_that_was_cancelled_leaves_no_reply_to_the_next(store: Store) -> None:
    await store.create(NewOperation(id="a"))
    reader, line = reader_of(store), encode("log", {"message": "m"}, store.settings)
    for n in range(2, 6):
        numbers: list[int] = []
        following = Tasks()
        following.spawn(follow(reader, numbers))
        await eventually(lambda: reader.connected, "it reads")
        await store.publish("a", [line])
        await eventually(lambda numbers=numbers: numbers, "the event comes")
        await following.close()  # repeatedly: the double may lose a cancellation
        assert numbers == [n]
        reader.connected = False


async def test_a_connection_that_was_cut_is_made_anew(redis_url: str, settings: Any) -> None:
    settings = settings.model_copy(update={"redis_url": type(settings)(_env_file=None, redis_url=redis_url).redis_url})
    async with await Store.open(settings) as store:
        await store.create(NewOperation(id="a"))
        reader, numbers = reader_of(store), list[int]()
        following = asyncio.create_task(follow(reader, numbers))
        await eventually(lambda: reader.connected, "it reads")
        assert await store.connections.commands.client_kill_filter(_type="normal", skipme=True)
        await eventually(lambda: reader.interruptions and reader.connected, "it notices, and reads again")
        await store.publish("a", [encode("log", {"message": "m"}, store.settings)])
        await eventually(lambda: numbers == [2], "the event comes")
        await end(following)
        await store.delete("a", force=True)


@pytest.mark.parametrize(
    ("kept_before", "written_since", "lost"),
    [(3, 0, False), (3, 9, False), (2, 0, True), (2, 1, True), (2, 9, True), (0, 0, True), (0, 4, True)],
)
async def test_after_an_interruption_it_tells_which_feeds_have_lost_history(
    store: Store, kept_before: int, written_since: int, lost: bool
) -> None:
    """A feed may have lost events although newer ones were written since."""
    client, lane = store.connections.commands, 1
    feed = store.keyspace.lane(lane).feed
    reader, batches = await reading(store, "1-0", "2-0", "3-0")
    if kept_before < 3:
        await client.xdel(feed, *[f"{at}-0" for at in range(kept_before + 1, 4)])
    for at in range(10, 10 + written_since):
        await client.xadd(feed, NOTE, id=f"{at}-0")
    for _ in range(2):  # it is reported again if the batch could not be delivered
        reader.connected = False
        assert list((await anext(batches)).lost) == ([lane] if lost else [])


@pytest.mark.parametrize(("trimmed_to", "lost"), [(5, False), (4, True)])
async def test_a_feed_that_was_trimmed_has_lost_nothing_and_keeps_enough_to_show_it(
    store: Store, trimmed_to: int, lost: bool
) -> None:
    feed = store.keyspace.lane(1).feed
    reader, batches = await reading(store, "1-0")
    for at in range(10, 20):
        await store.connections.commands.xadd(feed, NOTE, id=f"{at}-0")
    await store.connections.commands.xtrim(feed, maxlen=trimmed_to, approximate=False)
    reader.connected = False
    assert list((await anext(batches)).lost) == ([1] if lost else [])


@pytest.mark.parametrize("same", range(5))
async def test_it_finds_up_to_where_a_feed_has_what_was_read(store: Store, same: int) -> None:
    """Entries that another server has at the same positions are not the same."""
    redis, feed = store.connections.commands, store.keyspace.lane(1).feed
    reader, batches = await reading(store, *READ)
    await redis.delete(feed)
    for at in READ:
        await redis.xadd(feed, NOTE if READ.index(at) < same else NOTE | {"d": "1"}, id=at)
    for _ in range(2):
        reader.connected = False
        lost = (await anext(batches)).lost
        expected = Loss(b"%d-0" % same, b"4-0") if same else Loss(b"0-0", b"4-0", certain=False)
        assert lost == ({} if same == len(READ) else {1: expected})


async def test_what_was_read_of_another_server_counts_no_more_after_it_was_lost(store: Store) -> None:
    redis, feed = store.connections.commands, store.keyspace.lane(1).feed
    reader, batches = await reading(store, *READ)
    for kept, others in (("3-0", ["5-0", "6-0"]), ("3-0", READ[3:])):
        await redis.delete(feed)
        for at in READ[: READ.index(kept) + 1]:
            await redis.xadd(feed, NOTE, id=at)
        for at in others:
            await redis.xadd(feed, NOTE, id=at)
        reader.connected = False
        assert (await anext(batches)).lost[1].shared == kept.encode()
        assert not reader.up_to_date
        reader.delivered()
        assert reader.up_to_date
        await redis.xadd(feed, NOTE, id="9-0")
        while reader.positions[feed.encode()] != b"9-0":
            await anext(batches)


def test_landmarks_reach_far_back_and_are_dense_at_the_end() -> None:
    landmarks = Landmarks()
    for at in range(1, 100_001):
        landmarks.add([b"%d-0" % at, [b"o", b"a"]])
    numbers = [order(landmark.position)[0] for landmark in landmarks]
    assert numbers == sorted(set(numbers))
    assert (numbers[0] < 5_000, len(numbers) <= EACH * LEVELS) == (True, True)
    assert numbers[1 - EACH :] == [*range(100_002 - EACH, 100_001)]
    assert all(after - before <= max(1, (100_000 - before) / 8) for before, after in pairwise(numbers))
    landmarks.forget_after(b"%d-0" % numbers[3])
    assert [order(landmark.position)[0] for landmark in landmarks] == numbers[:4]
    assert landmarks.newest == [*landmarks][-1]


READ = ["1-0", "2-0", "3-0", "4-0"]
NOTE: Any = {"o": "x", "t": "note", "d": "null"}


async def reading(store: Store, *positions: str) -> tuple[FeedReader, AsyncIterator[Batch]]:
    """Return a reader that has read entries at these positions of a lane's feed. A feed keeps at least five entries."""
    reader = FeedReader(connected(store, 1), store.keyspace, least_kept=5)
    batches = reader.batches()
    assert not (await anext(batches)).lost
    feed = store.keyspace.lane(1).feed
    for at in positions:
        await store.connections.commands.xadd(feed, NOTE, id=at)
        while reader.positions[feed.encode()] != at.encode():
            await anext(batches)
    return reader, batches


@pytest.mark.parametrize(
    ("late", "written", "left", "resync"),
    [(False, 4, 4, ()), (False, 9, 6, (1,)), (True, 9, 3, (1,)), (True, 3, 4, ()), (False, 6, 9, ())],
    ids=["few", "by a batch", "by others", "not past the reader", "many but not trimmed"],
)
async def test_a_feed_that_was_trimmed_past_its_reader_is_noticed(
    store: Store, late: bool, written: int, left: int, resync: tuple[int, ...]
) -> None:
    """Its own clock says how late the reader is; what was trimmed was never told."""
    feed, client, now = store.keyspace.lane(1).feed, store.connections.commands, 100.0

    async def sleep(_: float) -> None:
        pass

    reader = FeedReader(connected(store, 1), store.keyspace, lambda: now, sleep, least_kept=5)
    batches = reader.batches()
    await anext(batches)
    for at in range(1, 4):
        await client.xadd(feed, NOTE, id=f"{at}-0")
    while reader.positions[feed.encode()] != b"3-0":
        await anext(batches)
    for at in range(10, 10 + written):
        await client.xadd(feed, NOTE, id=f"{at}-0")
    await client.xtrim(feed, maxlen=left, approximate=False)
    now += 1.0 if late else 0.0
    assert (await anext(batches)).resync == resync
