"""Query parameters: names of the position, repeated parameters, and unknown parameters."""

import json
from itertools import product
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect as connect_websocket

from progress_broker.queries.fields import FIELDS
from tests import sse
from tests.api.conftest import Connect
from tests.api.raw import STREAM, request
from tests.api.test_operations import OPS, create, finish, problem, publish
from tests.cases import case

SPELLINGS = ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "Last-Event-Id", "evs_last_event_id"]
MANY = "/v1/stream?operation=a"


@pytest.fixture
async def positions(http: httpx.AsyncClient) -> list[str]:
    """The positions of the events of an operation "a" that has ended."""
    await create(http, id="a")
    for number in range(3):
        await publish(http, "a", "log", {"message": str(number)})
    await finish(http, "a")
    return [message.id for message in sse.read((await http.get(f"{STREAM}?from=start")).content)]


async def told(http: httpx.AsyncClient, url: str, **headers: str) -> list[tuple[str, str]]:
    answer = await http.get(url, headers=headers)
    assert answer.status_code == 200, answer.text
    return [(message.type, message.id) for message in sse.read(answer.content) if message.type != "operations"]


class TestAPosition:
    @pytest.mark.parametrize("name", SPELLINGS)
    async def test_is_resumed_from_however_a_client_spells_it(
        self, http: httpx.AsyncClient, positions: list[str], name: str
    ) -> None:
        after = await told(http, STREAM, **{"Last-Event-ID": positions[1]})
        assert [id for _, id in after] == positions[2:]
        assert await told(http, f"{STREAM}?{name}={positions[1]}") == after
        assert (await http.get(f"{STREAM}?{name}={positions[-1]}")).status_code == 204
        for headers in ({}, {"Last-Event-ID": positions[1]}):
            problem(await http.get(f"{STREAM}?{name}=nonsense", headers=headers), 422, "invalid")

    @pytest.mark.parametrize("name", SPELLINGS)
    async def test_of_many_operations_too(self, http: httpx.AsyncClient, positions: list[str], name: str) -> None:
        cursors = [id for _, id in await told(http, MANY)]
        assert (await http.get(f"{MANY}&{name}={cursors[-1]}")).status_code == 204
        problem(await http.get(f"{MANY}&{name}=!"), 422, "invalid")

    @pytest.mark.parametrize("name", SPELLINGS)
    async def test_over_a_websocket_too(self, base_url: str, positions: list[str], name: str) -> None:
        url = f"{base_url.replace('http', 'ws')}{OPS}/a/ws?{name}={positions[1]}"
        async with connect_websocket(url) as socket:
            messages = [json.loads(text) async for text in socket]
        assert [message["id"] for message in messages if "id" in message] == positions[2:]

    @pytest.mark.parametrize("path", [STREAM, MANY])
    async def test_that_is_empty_is_none(self, http: httpx.AsyncClient, positions: list[str], path: str) -> None:
        fresh = [type for type, _ in await told(http, path)]
        assert fresh == ["snapshot", "end"]
        assert [type for type, _ in await told(http, path, **{"Last-Event-ID": ""})] == fresh
        for name in SPELLINGS:
            url = f"{path}{'&' if '?' in path else '?'}{name}="
            assert [type for type, _ in await told(http, url)] == fresh

    async def test_that_is_empty_is_none_over_a_websocket(self, base_url: str, positions: list[str]) -> None:
        for url, asked in ((f"{OPS}/a/ws?last_event_id=", None), ("/v1/ws", {"last_event_id": ""})):
            headers = {"Last-Event-ID": ""}
            async with connect_websocket(base_url.replace("http", "ws") + url, additional_headers=headers) as socket:
                if asked is not None:
                    await socket.send(json.dumps({"type": "subscribe", "operation": "a"} | asked))
                events: list[str] = []
                while "unsubscribed" not in events:
                    events.append(json.loads(await socket.recv())["event"])
            assert events == ["open", *(["subscribed"] if asked is not None else []), "snapshot", "end", "unsubscribed"]

    async def test_of_a_polyfill_is_newer_than_the_pages_own(
        self, http: httpx.AsyncClient, positions: list[str]
    ) -> None:
        own = f"{STREAM}?last_event_id={positions[0]}"
        assert [id for _, id in await told(http, f"{own}&lastEventId={positions[2]}")] == positions[3:]
        header = {"Last-Event-ID": positions[3]}
        assert [id for _, id in await told(http, f"{own}&lastEventId={positions[2]}", **header)] == positions[4:]

    async def test_is_told_by_a_polyfill_with_what_it_adds(self, http: httpx.AsyncClient, positions: list[str]) -> None:
        added = "evs_buffer_size_limit=262144&evs_preamble=2056"
        assert [id for _, id in await told(http, f"{STREAM}?{added}&evs_last_event_id={positions[2]}")] == positions[3:]


CALLS = [
    ("GET", OPS),
    ("POST", OPS),
    ("GET", f"{OPS}/a"),
    ("DELETE", f"{OPS}/a"),
    ("POST", f"{OPS}/a/cancel"),
    ("POST", f"{OPS}/a/signals"),
    ("GET", f"{OPS}/a/events"),
    ("POST", f"{OPS}/a/events"),
    ("POST", f"{OPS}/a/tickets"),
    ("POST", "/v1/tickets"),
    ("GET", "/v1/revocations"),
    ("GET", STREAM),
    ("HEAD", f"{OPS}/a"),
    ("HEAD", STREAM),
    ("GET", "/v1/stream"),
]
UNKNOWN = {"form": "start", "sinse": "1h", "qu": "", "beginning": "start", "Types": "log", "_": "17"}


async def test_a_name_that_a_call_does_not_take_is_rejected(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for (method, path), (name, value) in product(CALLS, UNKNOWN.items()):
        with case(method, path, name):
            answer = await http.request(method, path, params={name: value})
            assert answer.status_code == 422
            if method != "HEAD":
                bad = problem(answer, 422, "invalid")
                assert (bad["field"], repr(name) in str(bad["detail"])) == (name, True)
            assert (await http.get(f"{OPS}/a")).json()["status"] == "pending"


async def test_the_rejection_names_those_it_takes(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for path, takes in (
        (f"{STREAM}?form=start", "children, from, interval_ms, last_event_id, ping, types, wait_s"),
        (f"{OPS}/a/events?since=1", "after, before, grep, level, limit, order, tail, types, wait"),
        (f"{OPS}?x=1", ", ".join(sorted((*FIELDS, "cursor", "fields", "limit", "sort")))),
        (f"{OPS}/a?x=1", "include"),
    ):
        assert str(problem(await http.get(path), 422, "invalid")["detail"]).endswith(f"this call accepts {takes}")


@pytest.mark.parametrize("path", ["/v1/ws?form=start", f"{OPS}/a/ws?form=start", f"{OPS}/a/ws?types=log&types=end"])
async def test_a_websocket_is_rejected_for_it_too(http: httpx.AsyncClient, base_url: str, path: str) -> None:
    await create(http, id="a")
    async with connect_websocket(base_url.replace("http", "ws") + path) as socket:
        told = json.loads(await socket.recv())
        assert (told["event"], told["type"]) == ("problem", "invalid")
        assert told["field"] in ("form", "types")
        await socket.wait_closed()
    assert socket.close_code == 4022


@pytest.mark.parametrize(
    "path",
    [
        f"{OPS}?parent=a&parent=b",
        f"{OPS}?limit=1&limit=2",
        f"{OPS}/a?include=children&include=children",
        f"{OPS}/a/events?after=0-0&after=0-0",
        f"{STREAM}?types=log&types=end",
        f"{STREAM}?lastEventId=0-0&lastEventId=0-0",
        "/v1/stream?owner=a&owner=b",
        "/v1/stream?operation=a&ping=event&ping=comment",
    ],
)
async def test_one_value_given_twice_is_rejected(http: httpx.AsyncClient, path: str) -> None:
    await create(http, id="a")
    bad = problem(await http.get(path), 422, "invalid")
    assert "more than once" in str(bad["detail"])


async def test_a_ticket_is_no_unknown_name(http: httpx.AsyncClient, connect: Connect) -> None:
    await create(http, id="a")
    for path in (f"{OPS}/a?ticket=x", f"{OPS}/a/events?ticket=x"):
        assert (await http.get(path)).status_code == 200
    for path in (f"{STREAM}?ticket=x&types=end", f"{MANY}&ticket=x"):
        client = await connect()
        client.send(request(path))
        assert (await client.head())[0] == 200


async def listed(http: httpx.AsyncClient, *pairs: tuple[str, str]) -> set[str]:
    answer = await http.get(OPS, params=httpx.QueryParams(pairs))
    assert answer.status_code == 200, answer.text
    return {operation["id"] for operation in answer.json()["operations"]}


class TestAFilterGivenAgain:
    @pytest.fixture(autouse=True)
    async def operations(self, http: httpx.AsyncClient) -> Any:
        for id, tags in (("pending", ["eu"]), ("running", ["eu", "big"]), ("failed", ["big"])):
            await create(http, id=id, tags=tags, owner="alice")
        await publish(http, "running", "progress", {"percent": 1})
        await finish(http, "failed", "failed")

    async def test_of_statuses_lists_any_of_them(self, http: httpx.AsyncClient) -> None:
        for statuses in ({"pending"}, {"pending", "running"}, {"running", "failed"}, {"pending", "running", "failed"}):
            pairs = [("status", status) for status in statuses]
            assert await listed(http, *pairs) == statuses
            assert await listed(http, *pairs, ("owner", "alice")) == statuses
            assert await listed(http, *pairs, ("owner", "bob")) == set()
        assert await listed(http, ("status", "running"), ("status", "running")) == {"running"}
        problem(await http.get(f"{OPS}?status=running&status=nonsense"), 422, "invalid")

    async def test_of_tags_lists_those_that_have_all(self, http: httpx.AsyncClient) -> None:
        assert await listed(http, ("tag", "eu")) == {"pending", "running"}
        assert await listed(http, ("tag", "eu"), ("tag", "big")) == {"running"}
        assert await listed(http, ("tag", "big"), ("status", "failed"), ("status", "pending")) == {"failed"}

    async def test_is_walked_page_by_page(self, http: httpx.AsyncClient) -> None:
        query = "status=pending&status=failed&limit=1"
        first = (await http.get(f"{OPS}?{query}")).json()
        second = (await http.get(f"{OPS}?{query}&cursor={first['next_cursor']}")).json()
        ids = [operation["id"] for operation in first["operations"] + second["operations"]]
        assert sorted(ids) == ["failed", "pending"]
