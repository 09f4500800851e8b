"""Bookmarks: a position without an event. They keep a client's position new, and say where replay ends."""

from typing import Any

import httpx
import orjson
import pytest
from websockets.asyncio.client import connect as connect_websocket

from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.stream.batching import BOOKMARK_EVERY
from progress_server.routes.history import MOST_LEFT_OUT
from tests import sse
from tests.api.raw import Client, request
from tests.api.test_operations import OPS, create, finish, publish
from tests.broker.costs import measured
from tests.conftest import make_settings

KEPT = 3 * BOOKMARK_EVERY
PASSED = 4 * KEPT


@pytest.fixture(params=["adopted", "asgi"])
def outlet(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def settings() -> Settings:
    return make_settings(history_length=KEPT, ring_length=16)


async def publish_logs(http: httpx.AsyncClient, count: int) -> None:
    for _ in range(0, count, BOOKMARK_EVERY):
        events = [{"type": "log", "data": {"message": "m"}}] * BOOKMARK_EVERY
        assert (await http.post(f"{OPS}/a/events", json=events)).status_code == 200


class Listener:
    """A client of a stream on a raw socket."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.told: list[sse.Message] = []

    @property
    def id(self) -> str:
        return self.told[-1].id

    async def until(self, type: str) -> sse.Message:
        while True:
            self.told += sse.read(await self.client.chunk())
            for message in self.told[::-1]:
                if message.type == type:
                    return message


@pytest.fixture
def listen(connect: Any) -> Any:
    async def listening(path: str, *lines: str) -> Listener:
        client = await connect()
        client.send(request(path, *lines))
        assert (await client.head())[0] == 200
        return Listener(client)

    return listening


@pytest.mark.parametrize("path", [f"{OPS}/a/stream?types=end", "/v1/stream?operation=a&types=end"])
async def test_a_client_of_few_types_missed_nothing_that_it_asked_for(
    http: httpx.AsyncClient, listen: Any, path: str
) -> None:
    await create(http, id="a")
    live = await listen(path)
    await live.until("snapshot")
    await publish_logs(http, PASSED)
    at = (await http.get(f"{OPS}/a")).json()["events"]
    while (
        sum(message.type == "bookmark" and "operation" in message.json for message in live.told) < at // BOOKMARK_EVERY
    ):
        await live.until("bookmark")
    assert {message.type for message in live.told} <= {"operations", "snapshot", "bookmark"}
    live.client.reset()

    again = await listen(path, f"Last-Event-ID: {live.id}")
    await publish_logs(http, BOOKMARK_EVERY)
    await finish(http, "a")
    await again.until("end")
    assert "snapshot" not in [message.type for message in again.told], "it was not told of a reset"


async def test_a_page_of_few_types_is_found_in_few_reads_and_reads_no_more_than_some(
    http: httpx.AsyncClient, store: Store
) -> None:
    await create(http, id="a", history_length=2 * MOST_LEFT_OUT)
    for type, times in (("log", 1), ("found", 3), ("log", 1 + MOST_LEFT_OUT // 1_000)):
        events = [{"type": type, "data": {"message": "m"}}] * (1_000 if type == "log" else 1)
        for _ in range(times):
            assert (await http.post(f"{OPS}/a/events", json=events)).status_code == 200
    query: dict[str, str] = {"types": "found,end", "limit": "1"}
    pages = []
    async with measured(store.connections.commands) as cost:
        for _ in range(5):
            pages.append((await http.get(f"{OPS}/a/events", params=query)).json())
            query["after"] = pages[-1]["position"]
    assert cost.commands < 2_000, "some events a command, and not one"
    assert [[event["data"] for event in page["events"]] for page in pages] == [*[[{"message": "m"}]] * 3, [], []]
    last = (await http.get(f"{OPS}/a")).json()["position"]
    assert [page["position"] == last for page in pages] == [False, False, False, False, True]
    assert not pages[-1]["done"]
    await finish(http, "a")
    ended = (await http.get(f"{OPS}/a/events", params=query)).json()
    assert ([event["type"] for event in ended["events"]], ended["done"]) == (["end"], True)
    await http.delete(f"{OPS}/a")  # the other tests' operations keep less


@pytest.mark.parametrize("exists", [True, False])
async def test_a_position_is_told_before_it_is_too_old_where_few_events_are_kept(
    http: httpx.AsyncClient, listen: Any, exists: bool
) -> None:
    kept = 10
    if exists:
        await create(http, id="a", history_length=kept)
    live = await listen(f"{OPS}/a/stream?types=end&wait_s=60")
    if not exists:
        await create(http, id="a", history_length=kept)
    await live.until("snapshot")
    for passed in range(2, 5 * kept):
        await publish(http, "a", "log", {"message": "m"})
        if passed % (kept // 2) == 0:
            mark = await live.until("bookmark")
            assert mark is live.told[-1]
            live.told.clear()
    await publish(http, "a", "log", {"message": "m"})
    again = await listen(f"{OPS}/a/stream?types=end", f"Last-Event-ID: {mark.id}")
    await finish(http, "a")
    await again.until("end")
    assert "snapshot" not in [message.type for message in again.told]


async def test_it_is_told_while_it_catches_up_too(http: httpx.AsyncClient, listen: Any) -> None:
    await create(http, id="a")
    await publish_logs(http, 2 * BOOKMARK_EVERY)
    old = await listen(f"{OPS}/a/stream?types=end&from=start")
    while not (old.told and "live" in old.told[-1].json["data"]):
        await old.until("bookmark")
    assert [message.json["data"] for message in old.told] == [{}, {}, {"live": True}]
    assert old.id == (await http.get(f"{OPS}/a")).json()["position"]


@pytest.mark.parametrize("query", ["", "?interval_ms=60000"])
async def test_it_says_once_where_the_replay_ends(http: httpx.AsyncClient, listen: Any, query: str) -> None:
    await create(http, id="a")
    first = (await http.get(f"{OPS}/a")).json()["position"]
    for current in range(3):
        await publish(http, "a", "progress", {"current": current})
    last = (await http.get(f"{OPS}/a")).json()["position"]
    for position, missed in ((first, ["progress"]), (None, [])):
        stream = await listen(f"{OPS}/a/stream{query}", f"Last-Event-ID: {position or last}")
        mark = await stream.until("bookmark")
        assert mark is stream.told[-1]
        assert mark.id == last
        assert mark.json == {
            "operation": "a",
            "n": (await http.get(f"{OPS}/a")).json()["events"],
            "type": "bookmark",
            "time": int(last.split("-")[0]),
            "data": {"live": True},
        }
        types = [message.type for message in stream.told]
        assert types[-2:-1] == missed, "all that was missed came before"
        await publish(http, "a", "log", {"message": "live"})
        await stream.until("log")
        assert [message.type for message in stream.told].count("bookmark") == 1
        last = stream.id


async def test_a_stream_that_begins_with_a_snapshot_has_none(http: httpx.AsyncClient, listen: Any) -> None:
    await create(http, id="a")
    stream = await listen(f"{OPS}/a/stream")
    await stream.until("snapshot")
    await finish(http, "a")
    await stream.until("end")
    assert [message.type for message in stream.told] == ["snapshot", "end"]


async def test_a_stream_of_many_says_when_all_of_them_are_told(http: httpx.AsyncClient, listen: Any) -> None:
    for name in "abc":
        await create(http, id=name)
    stream = await listen("/v1/stream?operation=a&operation=b&operation=c")
    mark = await stream.until("bookmark")
    assert mark.json == {"live": True}
    assert [message.type for message in stream.told] == ["operations", *["snapshot"] * 3, "bookmark"]
    again = await listen("/v1/stream?operation=a&operation=b&operation=c", f"Last-Event-ID: {mark.id}")
    await again.until("bookmark")
    assert [message.type for message in again.told] == ["operations", "bookmark"]


async def test_over_a_websocket(http: httpx.AsyncClient, base_url: str) -> None:
    await create(http, id="a")
    position = (await http.get(f"{OPS}/a")).json()["position"]  # of its creation
    url = f"{base_url.replace('http', 'ws', 1)}{OPS}/a/ws?last_event_id={position}"
    async with connect_websocket(url, proxy=None) as socket:
        messages = [orjson.loads(await socket.recv()) for _ in range(2)]
    assert messages[0]["event"] == "open"
    mark = {"operation": "a", "n": 1, "type": "bookmark", "time": int(position.split("-")[0]), "data": {"live": True}}
    assert messages[1] == {"id": position, "event": "bookmark", "data": mark}


async def test_publishers_can_not_send_any(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    answer = await http.post(f"{OPS}/a/events", json={"type": "bookmark", "data": {}})
    assert (answer.status_code, answer.json()["field"]) == (422, "type")
