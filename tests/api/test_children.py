"""Parents over HTTP: the totals of their children in responses, and live in streams, with every outlet."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from progress_broker.live.family import INTERVAL_S
from progress_broker.model.children import MAX_SHOWN
from progress_broker.operations.store import Store
from progress_broker.stream.stream import Mode
from tests import sse
from tests.api.test_operations import OPS, create, finish, problem, publish
from tests.servers import eventually


@pytest.fixture(params=["adopted", "asgi"])
def outlet(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def backend() -> str:
    """Only the real server: reading with both outlets is tested elsewhere."""
    return "redis"


@pytest.fixture(autouse=True)
async def nothing_is_left(app: Any, server: object) -> AsyncIterator[None]:
    yield
    families = app.state.context.hub.families
    app.state.context.hub.drain()
    await eventually(lambda: not families._read_tasks, "the reads end")
    assert (len(families), families._names, families._followers) == (0, {}, {})


async def report(http: httpx.AsyncClient, operation: str, percent: float | None, **more: object) -> None:
    told = {} if percent is None else {"percent": percent}
    assert (await publish(http, operation, "progress", told | more)).status_code == 200


async def family(http: httpx.AsyncClient, *children: tuple[str, float | None], parent: str = "p") -> None:
    """Create a parent that reports no percentage, and its children."""
    await create(http, id=parent)
    await report(http, parent, None)
    for id, percent in children:
        await create(http, id=id, kind="part", title=f"Part {id}", parent=parent)
        await report(http, id, percent)


class Following:
    """Reads a stream."""

    def __init__(self, bodies: AsyncIterator[bytes]) -> None:
        self._bodies, self._got = bodies, b""

    @property
    def messages(self) -> list[sse.Message]:
        return sse.read(self._got)

    @property
    def types(self) -> list[str]:
        return [message.type for message in self.messages]

    @property
    def told(self) -> list[dict[str, Any]]:
        """Each summary of the children that was sent."""
        return [message.json["data"] for message in self.messages if message.type == "children"]

    @property
    def percents(self) -> list[float]:
        return [told["percent"] for told in self.told]

    async def until(self, met: Callable[["Following"], object]) -> None:
        async with asyncio.timeout(30):
            while not met(self):
                self._got += await anext(self._bodies)

    async def until_percent(self, percent: float) -> None:
        await self.until(lambda it: it.percents[-1:] == [percent])

    async def to_the_end(self) -> None:
        async with asyncio.timeout(30):
            async for body in self._bodies:
                self._got += body


@asynccontextmanager
async def following(
    http: httpx.AsyncClient, operation: str = "p", headers: dict[str, str] | None = None, **query: Any
) -> AsyncIterator[Following]:
    params = {"children": "true"} | query
    async with http.stream("GET", f"{OPS}/{operation}/stream", params=params, headers=headers) as answer:
        assert answer.status_code == 200
        yield Following(answer.aiter_bytes())


class TestAnswers:
    @pytest.fixture
    def outlet(self) -> str:
        return "adopted"

    async def test_a_parent_shows_what_its_children_add_up_to(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60), ("b", 20))
        shown = (await http.get(f"{OPS}/p")).json()
        assert shown["children"] == {
            "total": 2, "done": 0, "failed": 0, "cancelled": 0, "running": 2, "percent": 40,
        }  # fmt: skip
        assert shown["progress"] == {"percent": 40, "rolled_up": True}
        listed = (await http.get(OPS)).json()["operations"]
        assert next(it for it in listed if it["id"] == "p") == shown
        assert [it["children"] for it in listed if it["id"] != "p"] == [None, None]

    async def test_the_children_are_included_on_request(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60), ("b", 20))
        shown = (await http.get(f"{OPS}/p?include=children")).json()["children"]
        assert shown.pop("operations") == [(await http.get(f"{OPS}/{id}")).json() for id in ("a", "b")]
        assert shown == (await http.get(f"{OPS}/p")).json()["children"]
        assert (await http.get(f"{OPS}/a?include=children")).json()["children"] is None
        problem(await http.get(f"{OPS}/p?include=parents"), 422, "invalid")

    async def test_the_tag_changes_with_the_children(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60))
        for query in ("", "?include=children"):
            tag = (await http.get(f"{OPS}/p{query}")).headers["etag"]
            again = await http.get(f"{OPS}/p{query}", headers={"If-None-Match": tag})
            assert (again.status_code, again.headers["etag"]) == (304, tag)
            await report(http, "a", 70 if query else 65)
            changed = await http.get(f"{OPS}/p{query}", headers={"If-None-Match": tag})
            assert (changed.status_code, changed.headers["etag"] == tag) == (200, False)

    async def test_history_holds_the_notes(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60))
        events = (await http.get(f"{OPS}/p/events")).json()["events"]
        assert [event["data"] for event in events if event["type"] == "child"] == [
            {"operation": "a", "kind": "part", "title": "Part a", "weight": 1}
        ]


class TestStreams:
    async def test_the_children_are_told_after_the_snapshot_and_whenever_they_change(
        self, http: httpx.AsyncClient
    ) -> None:
        await family(http, ("a", 60), ("b", 20))
        async with following(http) as stream:
            await stream.until_percent(40)
            assert list(dict.fromkeys(stream.types)) == ["snapshot", "children"]
            await report(http, "b", 40, message="half of it")
            await stream.until_percent(50)
            await finish(http, "a")
            await stream.until_percent(70)
        assert list(dict.fromkeys(stream.types)) == ["snapshot", "children"]
        assert stream.types.count("children") >= 3  # a slow machine may send an intermediate step
        summary = {"total": 2, "done": 1, "failed": 0, "cancelled": 0, "running": 1, "percent": 70}
        assert stream.told[-1] == summary | {
            "operations": [
                {"id": "a", "kind": "part", "title": "Part a", "status": "succeeded", "percent": 100, "weight": 1},
                {
                    "id": "b", "kind": "part", "title": "Part b", "status": "running", "percent": 40, "weight": 1,
                    "message": "half of it",
                },
            ]
        }  # fmt: skip
        first, *others = stream.messages
        assert {message.id for message in others} == {first.id}, "they move no position"
        assert all(set(message.json) == {"operation", "type", "time", "data"} for message in others)

    async def test_only_who_asks_is_told_but_new_children_are_events(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60))
        async with following(http, children="false") as stream, following(http) as other:
            await stream.until(lambda it: it.types == ["snapshot"])
            await create(http, id="b", parent="p")
            await other.until(lambda it: it.told and it.told[-1]["total"] == 2)
            await finish(http, "p")
            await stream.to_the_end()
        assert stream.types == ["snapshot", "child", "end"]
        assert [message.json["n"] for message in stream.messages] == [4, 5, 6]
        assert stream.messages[1].json["data"]["operation"] == "b"

    async def test_what_changed_last_is_told_before_the_end(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60), ("b", 20))
        async with following(http) as stream:
            await stream.until_percent(40)
            for id in ("a", "b"):
                await finish(http, id)
            await finish(http, "p")
            await stream.to_the_end()
        assert stream.types[-2:] == ["children", "end"]
        assert stream.told[-1]["done"] == 2

    async def test_a_finished_parent_tells_of_its_children_between_snapshot_and_end(
        self, http: httpx.AsyncClient
    ) -> None:
        await family(http, ("a", 60))
        await finish(http, "p")
        async with following(http) as stream:
            await stream.to_the_end()
        assert stream.types == ["snapshot", "children", "end"]
        assert stream.percents == [60]

    async def test_who_resumes_is_told_after_what_was_missed(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60))
        position = str((await http.get(f"{OPS}/p")).json()["position"])
        await create(http, id="b", parent="p")
        await publish(http, "p", "log", {"message": "m"})
        async with following(http, headers={"Last-Event-ID": position}) as stream:
            await stream.until_percent(30)
            assert stream.types == ["child", "log", "bookmark", "children"]
            await finish(http, "p")
            await stream.to_the_end()
        end = stream.messages[-1].id
        answer = await http.get(f"{OPS}/p/stream?children=true", headers={"Last-Event-ID": end})
        assert (answer.status_code, answer.content) == (204, b"")

    async def test_a_replay_tells_them_when_it_has_caught_up(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60))
        await finish(http, "p")
        async with following(http, **{"from": "start"}) as stream:
            await stream.to_the_end()
        assert stream.types == ["status", "status", "progress", "child", "children", "end"]

    @pytest.mark.parametrize("accepts", ["gzip", "identity"])
    async def test_many_children_fit_whatever_the_encoding(self, http: httpx.AsyncClient, accepts: str) -> None:
        titles = "ä" * 512
        await create(http, id="p")
        for number in range(MAX_SHOWN + 5):
            await create(http, id=f"c{number:03}", parent="p", title=titles)
        async with following(http, headers={"Accept-Encoding": accepts}) as stream:
            await stream.until(lambda it: it.told)
        [told] = stream.told
        assert (told["total"], len(told["operations"])) == (MAX_SHOWN + 5, MAX_SHOWN)
        assert len(stream.messages[1].data.encode()) > 65_535, "more than one block of deflate's holds"

    async def test_a_parent_that_is_deleted_sends_its_watchers_away(self, app: Any, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 60))
        async with following(http) as stream:
            await stream.until_percent(60)
            await http.delete(f"{OPS}/p?force=true")
            await stream.to_the_end()
        assert stream.types == ["snapshot", "children", "reconnect"]
        assert not app.state.context.hub.families


class TestFamilies:
    @pytest.fixture
    def outlet(self) -> str:
        return "adopted"

    async def test_new_children_join_and_deleted_ones_leave(self, http: httpx.AsyncClient) -> None:
        await family(http)
        async with following(http) as stream:
            await stream.until(lambda it: it.types == ["snapshot"])
            await create(http, id="a", parent="p", weight=3)
            await stream.until(lambda it: it.told)
            assert stream.types == ["snapshot", "child", "children"]
            await create(http, id="b", parent="p")
            await report(http, "b", 80)
            await stream.until_percent(20)
            await http.delete(f"{OPS}/a?force=true")
            await stream.until_percent(80)
            await http.delete(f"{OPS}/b?force=true")
            await stream.until(lambda it: it.told[-1]["total"] == 0)
            assert stream.told[-1]["operations"] == []

    async def test_one_without_children_says_nothing_of_them(self, http: httpx.AsyncClient) -> None:
        await create(http, id="p")
        async with following(http) as stream:
            await stream.until(lambda it: it.types == ["snapshot"])
            await finish(http, "p")
            await stream.to_the_end()
        assert stream.types == ["snapshot", "end"]

    async def test_the_children_of_a_child_count(self, http: httpx.AsyncClient) -> None:
        await family(http, ("a", None), ("b", 0))
        async with following(http) as stream:
            await stream.until_percent(0)
            await create(http, id="a1", parent="a")
            await report(http, "a1", 60)
            await stream.until_percent(30)
            await finish(http, "a1")
            await stream.until_percent(50)

    @pytest.mark.parametrize(
        ("types", "expected"),
        [("log", ["snapshot", "log", "end"]), ("children", ["snapshot", "children", "children", "end"])],
    )
    async def test_types_filter_them_too(self, http: httpx.AsyncClient, types: str, expected: list[str]) -> None:
        await family(http, ("a", 60))
        async with following(http, types=types) as stream:
            await stream.until(lambda it: it.types[:1] == ["snapshot"])
            await publish(http, "p", "log", {"message": "m"})
            await finish(http, "a")
            await finish(http, "p")
            await stream.to_the_end()
        assert stream.types == expected

    @pytest.mark.parametrize("interval_ms", [0, 60_000])
    async def test_changes_are_conflated(self, http: httpx.AsyncClient, interval_ms: int) -> None:
        await family(http, ("a", 0))
        loop = asyncio.get_running_loop()
        async with following(http, interval_ms=interval_ms) as stream:
            await stream.until_percent(0)
            began = loop.time()
            for percent in range(1, 60):
                await report(http, "a", percent)
            await finish(http, "p")
            await stream.to_the_end()
            took_s = loop.time() - began
        assert stream.percents[-1] == 59
        most = 3 + took_s / INTERVAL_S if interval_ms == 0 else 2
        assert len(stream.told) <= most

    async def test_a_family_is_shared_and_forgotten_with_its_last_watcher(
        self, app: Any, http: httpx.AsyncClient
    ) -> None:
        await family(http, ("a", 60))
        families = app.state.context.hub.families
        async with following(http) as one:
            await one.until_percent(60)
            async with following(http) as other:
                await other.until_percent(60)
                assert len(families) == 1
            await eventually(lambda: len(app.state.context.hub) == 1, "the other is forgotten")
            await report(http, "a", 80)
            await one.until_percent(80)
        await eventually(lambda: not families, "all are forgotten")

    async def test_awaiting_a_parent(self, http: httpx.AsyncClient) -> None:
        async with following(http, wait_s=20) as stream:
            await stream.until(lambda it: b": connected" in it._got)
            await family(http, ("a", 60))
            await stream.until_percent(60)
            assert stream.types[0] == "snapshot"

    async def test_a_rejection_leaves_no_family(self, app: Any, http: httpx.AsyncClient) -> None:
        problem(await http.get(f"{OPS}/nope/stream?children=true"), 404, "not-found")
        problem(await http.get(f"{OPS}/nope/stream?children=maybe"), 422, "invalid")
        assert not app.state.context.hub.families

    async def test_what_a_feed_that_was_interrupted_did_not_bring_is_read(
        self, app: Any, store: Store, http: httpx.AsyncClient
    ) -> None:
        await family(http, ("a", 60))
        hub = app.state.context.hub
        async with following(http) as stream:
            await stream.until_percent(60)
            [watched] = hub.families._families.values()
            await eventually(lambda: not (watched._stale or watched._reading), "it has nothing to read any more")
            heard = hub.families.dispatch
            hub.families.dispatch = lambda events: None
            await report(http, "a", 80)
            await finish(http, "a")
            await create(http, id="b", parent="p")
            await eventually(lambda: all(channel.n == 5 for channel in hub.channels), "the feed is read")
            hub.families.dispatch = heard
            await hub._resync(set(range(store.keyspace.lanes)))
            await stream.until_percent(50)


class TestSlowClients:
    async def test_one_holds_no_more_than_the_newest(self, app: Any, base_url: str, http: httpx.AsyncClient) -> None:
        await family(http, ("a", 0))
        host, port = base_url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
        writer.write(b"GET /v1/operations/p/stream?children=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"event: children")
        [channel] = app.state.context.hub.channels
        [subscription] = channel.subscriptions

        async def fill() -> bool:
            await http.post(f"{OPS}/p/events", json=[{"type": "log", "data": {"message": "x" * 60_000}}] * 10)
            return subscription.mode is not Mode.LIVE

        await eventually(fill, "it is slow")
        [family_of_p] = app.state.context.hub.families._families.values()
        for percent in range(1, 4):
            version = family_of_p.version
            await report(http, "a", percent)
            await eventually(lambda before=version: family_of_p.version > before, "there is another frame")
        await finish(http, "p")
        body = bytearray()
        async with asyncio.timeout(30):
            while not body.endswith(b"0\r\n\r\n"):
                body += await reader.read(1 << 20)
        assert body.count(b"event: children") <= 2
        assert body.rfind(b'"percent":3') > body.rfind(b"event: log")
        writer.close()
