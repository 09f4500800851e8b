"""What operators see of the replicas and their streams, and how they end one: here two replicas on one Redis."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from progress_broker.operations.store import Store
from progress_broker.replicas import calls, presence
from progress_broker.replicas.calls import Question, ask
from progress_broker.settings import Settings
from progress_server.app import create_app
from tests.api.conftest import OUTLETS, InLoopServer
from tests.api.proofs import ALICE, admin, bearing, create, secured, token
from tests.api.raw import Client, request
from tests.servers import DEADLINE_S, eventually

STREAMS = "/v1/admin/streams"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, max_long_poll_s=30)


@pytest.fixture
async def second(store: Store) -> AsyncIterator[str]:
    """The address of another replica."""
    app = create_app(store.settings.model_copy(update={"feed_length": 5_000}), store)
    server = InLoopServer(uvicorn.Config(app, http=OUTLETS["asgi"], port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or serving.done(), "the second replica starts")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    app.state.context.hub.drain()
    server.should_exit = True
    await serving


def stream_of(operation: str, proof: str, *lines: str) -> bytes:
    return request(f"/v1/operations/{operation}/stream", f"Authorization: Bearer {proof}", *lines)


async def opened(url: str, proof: str, clients: list[Client]) -> tuple[Client, str]:
    """Open a stream, and return it with the name of its connection."""
    clients.append(await Client.connect(url))
    clients[-1].send(stream_of("a", proof))
    return clients[-1], (await clients[-1].opened())["progress-connection"]


@pytest.fixture
async def clients() -> AsyncIterator[list[Client]]:
    opened: list[Client] = []
    yield opened
    for client in opened:
        client.close()


async def listed(http: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get(STREAMS, params=query, headers=admin())
    assert answer.status_code == 200, answer.text
    assert answer.json()["silent"] == []
    found: list[dict[str, Any]] = answer.json()["streams"]
    return found


async def test_replicas_tell_of_themselves_and_in_what_they_differ(
    http: httpx.AsyncClient, second: str, store: Store
) -> None:
    async def both_are_ready() -> bool:
        answer = (await http.get("/v1/admin/replicas", headers=admin())).json()
        return [each["ready"] for each in answer["replicas"]] == [True, True]

    await eventually(both_are_ready, "both replicas have told that they are ready")
    told = (await http.get("/v1/admin/replicas", headers=admin())).json()
    assert told["differing"] == {"feed_length": [store.settings.feed_length, 5_000]}
    first, other = told["replicas"]
    assert first["id"] != other["id"]
    assert {first["reason"], other["reason"]} == {None}
    assert first["lanes"] == store.keyspace.lanes
    assert 0 <= first["told_s"] < presence.KEPT_S
    key = f"{store.keyspace.prefix}:replica:{first['id']}"
    assert 0 < await store.connections.commands.pttl(key) <= 1000 * presence.KEPT_S


async def test_a_replica_that_ends_is_not_there_and_one_that_died_is_forgotten(store: Store) -> None:
    app = create_app(store.settings, store)
    async with app.router.lifespan_context(app):
        await eventually(lambda: _there(store, 1), "it is there")
        [state] = await presence.present_replicas(store)
        await store.connections.commands.delete(f"{store.keyspace.prefix}:replica:{state.id}")  # as if it had expired
        assert await presence.present_replicas(store) == []
    assert not await store.connections.commands.zcard(f"{store.keyspace.prefix}:replicas")


async def _there(store: Store, count: int) -> bool:
    return len(await presence.present_replicas(store)) == count


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
async def test_streams_of_all_replicas_are_listed_with_who_has_them(
    http: httpx.AsyncClient, base_url: str, second: str, clients: list[Client]
) -> None:
    alice = token("alice", ALICE)
    await create(http, "a", bearing(alice))
    names = [(await opened(url, alice, clients))[1] for url in (base_url, second, base_url)]
    async with connect(f"{second.replace('http', 'ws')}/v1/ws", additional_headers=bearing(alice)) as socket:
        socket_name = json.loads(await socket.recv())["connection"]
        await socket.send(json.dumps({"type": "subscribe", "operation": "a"}))
        while json.loads(await socket.recv())["event"] != "snapshot":
            pass
        many = await Client.connect(base_url)
        clients.append(many)
        many.send(request("/v1/stream?operation=a", f"Authorization: Bearer {alice}"))
        _, headers = await many.head()
        found = await listed(http)
        rows = {row["connection"]: row for row in found}
        assert len(found) == len(rows)
        assert rows.keys() == {*names, socket_name, headers["progress-connection"]}
        for row in rows.values():
            assert (row["principal"], row["address"]) == ("alice", "127.0.0.1")
            assert row["operations"] == 1
            assert row["connection"].startswith(row["replica"])
        assert {rows[name]["operation"] for name in (*names, socket_name)} == {"a"}
        assert rows[headers["progress-connection"]]["operation"] == "*"
        assert rows[socket_name]["outlet"] == "websocket"
        # Page by page each comes once, and filters leave others out.
        paged: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await http.get(STREAMS, params=query, headers=admin())).json()
            paged += [row["connection"] for row in page["streams"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        assert sorted(paged) == sorted(rows)
        assert len(await listed(http, operation="a")) == 4
        assert await listed(http, principal="bob") == await listed(http, address="192.0.2.1") == []


async def test_a_stream_is_ended_at_whichever_replica_it_is(
    http: httpx.AsyncClient, second: str, clients: list[Client]
) -> None:
    alice = token("alice", ALICE)
    await create(http, "a", bearing(alice))
    client, name = await opened(second, alice, clients)
    answer = await http.delete(f"{STREAMS}/{name}", headers=admin())
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "connection": name,
        "operation": "a",
        "principal": "alice",
        "address": "127.0.0.1",
        "returns": True,
    }
    assert b'event: reconnect\ndata: {"reason":"kicked"}' in await client.body()
    assert (await http.delete(f"{STREAMS}/{name}", headers=admin())).status_code == 404
    client, name = await opened(second, alice, clients)
    assert (await http.delete(f"{STREAMS}/{name}?for_good=true", headers=admin())).status_code == 200
    assert b"event: replaced" in await client.body()


async def of_stream(url: str, proof: str, _: str) -> str:
    """Follow `a` until the stream ends; return how it ended."""
    client = await Client.connect(url)
    client.send(stream_of("a", proof))
    await client.opened()
    try:
        return (await client.body()).decode()
    finally:
        client.close()


async def of_socket(url: str, proof: str, _: str) -> str:
    said = ""
    async with connect(f"{url.replace('http', 'ws')}/v1/ws", additional_headers=bearing(proof)) as socket:
        await socket.send(json.dumps({"type": "subscribe", "operation": "a"}))
        with suppress(ConnectionClosed):
            async for message in socket:
                said += str(message)
    return said


async def of_poll(url: str, proof: str, position: str) -> str:
    events = f"{url}/v1/operations/a/events"
    async with httpx.AsyncClient(timeout=None) as http:
        answer = await http.get(events, params={"wait": 30, "after": position}, headers=bearing(proof))
    assert answer.json()["events"] == []
    return answer.text


@pytest.mark.parametrize(
    ("follow", "sent_by", "told"),
    [(of_stream, "adopted asgi", '"reason":"kicked"'), (of_socket, "websocket", "kicked"), (of_poll, "poll", "events")],
)
async def test_it_is_ended_whatever_it_is_and_at_whichever_replica(
    follow: Callable[[str, str, str], Awaitable[str]],
    sent_by: str,
    told: str,
    http: httpx.AsyncClient,
    base_url: str,
    second: str,
) -> None:
    alice = token("alice", ALICE)
    made = await create(http, "a", bearing(alice))
    rows: list[dict[str, Any]] = []

    async def is_listed() -> bool:
        rows[:] = [row for row in await listed(http, principal="alice") if row["outlet"] != "none"]
        return [row["operations"] for row in rows] == [1]

    for url in (base_url, second):
        following = asyncio.create_task(follow(url, alice, made["position"]))
        await eventually(is_listed, "it is listed")
        assert rows[0]["outlet"] in sent_by.split()
        kicked = await http.delete(f"{STREAMS}/{rows[0]['connection']}", headers=admin())
        assert kicked.status_code == 200, kicked.text
        async with asyncio.timeout(DEADLINE_S):  # the call has waited for its replica, but not for its client
            assert told in await following
        assert (await http.delete(f"{STREAMS}/{rows[0]['connection']}", headers=admin())).status_code == 404


async def test_a_replica_that_does_not_answer_is_named(
    http: httpx.AsyncClient, app: Any, store: Store, base_url: str, clients: list[Client]
) -> None:
    alice = token("alice", ALICE)
    await create(http, "a", bearing(alice))
    _, name = await opened(base_url, alice, clients)
    hub = app.state.context.hub
    replica = hub.streams.replica
    await eventually(lambda: _there(store, 1), "it is there")
    answers = hub.internal_handlers.pop(calls.ASK)  # as while its feed is interrupted
    answer = await http.delete(f"{STREAMS}/{name}", headers=admin())
    assert (answer.status_code, answer.json()["type"]) == (503, "storage-unavailable")
    assert f"replica {replica} did not answer within 2 s" in answer.json()["detail"]
    told = (await http.get(STREAMS, headers=admin())).json()
    assert (told["streams"], told["silent"], told["next_cursor"]) == ([], [replica], None)
    hub.internal_handlers[calls.ASK] = answers
    assert len(await listed(http)) == 1


async def test_a_question_that_a_feed_lost_is_asked_again_and_answered_once(
    http: httpx.AsyncClient, app: Any, store: Store
) -> None:
    hub = app.state.context.hub
    await eventually(lambda: _there(store, 1), "it is there")
    received: list[bytes] = []
    answers = hub.internal_handlers[calls.ASK]

    def lossy(event: Any) -> None:
        received.append(event.data)
        if len(received) != 1:
            answers(event)
            answers(event)

    hub.internal_handlers[calls.ASK] = lossy
    replies = await ask(store, Question.STREAMS, {"filter": {}, "limit": 1, "after": None})
    assert [reply.replica for reply in replies.answers] == [hub.streams.replica]
    assert replies.silent == []
    assert len(received) == 2
    assert len(set(received)) == 1


async def test_what_a_worker_puts_into_a_feed_asks_nothing(http: httpx.AsyncClient, app: Any, store: Store) -> None:
    feed = store.keyspace.lane(0).feed
    await store.connections.commands.xadd(feed, {"o": calls.ASK, "t": "ask", "d": "made-up"})
    here, unknown = app.state.context.hub.streams.replica, cast("Question", "of a later release")
    reply = await ask(store, unknown, {}, replicas=[here])
    assert [answer.body["error"] for answer in reply.answers] == ["invalid"]  # it went on, and says what it can't do
    assert not await store.connections.commands.exists(f"{store.keyspace.prefix}:answers:made-up")


async def test_who_may_not_observe_sees_nothing(http: httpx.AsyncClient) -> None:
    for path in (STREAMS, "/v1/admin/replicas"):
        assert (await http.get(path, headers=bearing(token("alice", ALICE)))).status_code == 403
        observer = bearing(token("ops", grants=[{"actions": ["observe"]}]))
        assert (await http.get(path, headers=observer)).status_code == 200
    assert (await http.delete(f"{STREAMS}/00000000-1", headers=observer)).status_code == 403
