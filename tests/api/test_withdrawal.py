"""The end of credentials: a stream ends when its token expires or is revoked, and resumes with another token."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from progress_broker.access.deny_list import DenyList, RevokedClaim, list_revoked, restore_claim, revoke_claim
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.storage.keys import denied_key, meta_key
from tests.api.proofs import ALICE, COOKIE, KEY, admin, bearing, create, secured, soon, token
from tests.api.proofs import told as answer_of
from tests.api.raw import Client, request
from tests.servers import eventually

OPS = "/v1/operations"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, revocation_check_s=0.05)


def stream(proof: str, *lines: str) -> bytes:
    return request(f"{OPS}/a/stream", f"Authorization: Bearer {proof}", *lines)


@pytest.mark.parametrize("outlet", ["adopted", "asgi"])
async def test_a_stream_ends_with_its_token_and_resumes_with_another(http: httpx.AsyncClient, base_url: str) -> None:
    alice = bearing(token("alice", ALICE))
    made = await create(http, "a", alice)
    client = await Client.connect(base_url)
    client.send(stream(token("alice", ALICE, exp=soon())))
    await client.opened()
    told = await client.body()
    assert b'event: reconnect\ndata: {"reason":"expired"}' in told
    client.close()
    again = await Client.connect(base_url)
    again.send(stream(token("alice", ALICE), f"Last-Event-ID: {made['position']}"))
    status, _ = await again.head()
    assert status == 200
    await http.post(f"{OPS}/a/events", json={"type": "log", "data": {"message": "later"}}, headers=alice)
    assert b"snapshot" not in await again.chunk_with(b"later")
    again.close()


async def test_a_stream_that_a_ticket_opened_ends_with_the_token_it_was_got_with(
    http: httpx.AsyncClient, base_url: str
) -> None:
    await create(http, "a", bearing(token("alice", ALICE)))
    short = bearing(token("alice", ALICE, exp=soon()))
    ticket = (await http.post(f"{OPS}/a/tickets", headers=short)).json()["ticket"]
    client = await Client.connect(base_url)
    client.send(request(f"{OPS}/a/stream?ticket={ticket}"))
    await client.opened()
    assert b'{"reason":"expired"}' in await client.body()
    client.close()
    assert (await http.get(f"{OPS}/a/stream", params={"ticket": ticket})).status_code == 401


@pytest.mark.parametrize(("what", "value"), [("sub", "alice"), ("jti", "t-1")])
async def test_who_is_denied_is_sent_away_and_stays_out(
    http: httpx.AsyncClient, base_url: str, store: Store, what: str, value: str
) -> None:
    denied, other = token("alice", ALICE, jti="t-1"), token("bob", ALICE, jti="t-2")
    await create(http, "a", bearing(denied))
    ticket = (await http.post(f"{OPS}/a/tickets", headers=bearing(denied))).json()["ticket"]
    client = await Client.connect(base_url)
    client.send(stream(denied))
    await client.opened()
    assert what in ("sub", "jti")
    await revoke_claim(store, "sub" if what == "sub" else "jti", value, 60)
    assert b'event: reconnect\ndata: {"reason":"revoked"}' in await client.body()
    client.close()
    assert (await http.get(OPS, headers=bearing(denied))).status_code == 401
    assert (await http.get(f"{OPS}/a/events", params={"ticket": ticket})).status_code == 401
    assert (await http.get(OPS, headers=bearing(other))).status_code == 200
    fresh = await http.get(OPS, headers=bearing(token("alice", ALICE, jti="t-3")))
    assert fresh.status_code == (401 if what == "sub" else 200)


async def test_a_long_poll_ends_with_its_proof(http: httpx.AsyncClient, store: Store) -> None:
    alice, usual = token("alice", ALICE, jti="t-1"), await http.get(OPS)
    made = await create(http, "a", bearing(alice))
    query = {"wait": 30, "after": made["position"]}
    short = token("alice", ALICE, exp=soon())
    polls = [
        asyncio.create_task(http.get(f"{OPS}/a/events", params=query, headers=bearing(it))) for it in (short, alice)
    ]
    expired = await polls[0]
    assert (expired.status_code, expired.content) == (401, usual.content)
    assert not polls[1].done()
    await revoke_claim(store, "jti", "t-1", 60)
    revoked = await polls[1]
    assert (revoked.status_code, revoked.content) == (401, usual.content)
    assert answer_of(revoked) == answer_of(usual)


@pytest.mark.parametrize("ends", ["expires", "revoked"])
async def test_lines_are_taken_no_longer_than_their_proof_holds(
    http: httpx.AsyncClient, base_url: str, store: Store, ends: str
) -> None:
    short: dict[str, Any] = {"exp": soon()} if ends == "expires" else {}
    alice, usual = token("alice", ALICE, jti="t-1", **short), await http.get(OPS)
    await create(http, "a", bearing(token("alice", ALICE)))
    client = await Client.connect(base_url)
    lines = ["Content-Type: application/x-ndjson", "Transfer-Encoding: chunked"]
    client.send(request(f"{OPS}/a/events", f"Authorization: Bearer {alice}", *lines, method="POST"))
    line = b'{"type": "log", "data": {"message": "x"}}\n'
    chunk = b"%x\r\n%b\r\n" % (len(line), line)
    client.send(chunk)

    async def stored() -> int:
        answer = await http.get(f"{OPS}/a/events?types=log", headers=bearing(token("alice", ALICE)))
        return len(answer.json()["events"])

    await eventually(stored, "the first line is stored")
    if ends == "revoked":
        await revoke_claim(store, "jti", "t-1", 60)

    async def is_out() -> bool:
        return (await http.get(OPS, headers=bearing(alice))).status_code == 401

    await eventually(is_out, "the token is out")
    client.send(chunk)
    status, told = await client.answer()
    assert (status, told) == (401, usual.content)
    client.close()
    assert await stored() == 1


async def heard(socket: ClientConnection) -> list[dict[str, Any]]:
    """Return all messages of a WebSocket until it is closed."""
    told: list[dict[str, Any]] = []
    with suppress(ConnectionClosed):
        while True:
            told.append(json.loads(await socket.recv()))
    return told


async def test_a_websocket_is_told_what_ends_it(http: httpx.AsyncClient, base_url: str, store: Store) -> None:
    denied = bearing(token("alice", ALICE))
    await create(http, "a", denied)
    url = base_url.replace("http", "ws")
    async with asyncio.timeout(60), connect(f"{url}{OPS}/a/ws", additional_headers=denied) as socket:
        await revoke_claim(store, "sub", "alice", 60)
        told = await heard(socket)
        assert (told[-1]["event"], told[-1]["reason"]) == ("reconnect", "revoked")
    async with asyncio.timeout(60), connect(f"{url}/v1/ws", additional_headers=denied) as socket:
        told = await heard(socket)
        assert [(it["event"], it["type"]) for it in told] == [("problem", "unauthenticated")]
        assert socket.close_code == 4001


async def test_others_streams_stay(http: httpx.AsyncClient, base_url: str, store: Store, app: object) -> None:
    reads_all = {"grants": [{"actions": ["read"]}]}
    await create(http, "a", bearing(token("alice", ALICE)))
    client = await Client.connect(base_url)
    client.send(stream(token("bob", **reads_all)))
    await client.opened()
    await revoke_claim(store, "sub", "alice", 60)

    async def is_out() -> bool:
        return (await http.get(OPS, headers=bearing(token("alice", ALICE)))).status_code == 401

    await eventually(is_out, "alice is out")
    published = {"type": "log", "data": {"message": "still there"}}
    await http.post(f"{OPS}/a/events", json=published, headers=bearing(KEY))
    await client.chunk_with(b"still there")
    client.close()


async def test_an_api_key_is_revoked_by_its_name(http: httpx.AsyncClient, store: Store) -> None:
    await revoke_claim(store, "sub", "publisher", 60)

    async def is_out() -> bool:
        return (await http.get(OPS, headers=bearing(KEY))).status_code == 401

    await eventually(is_out, "the key is out")


@pytest.mark.parametrize(("claim", "value"), [("sub", "alice"), ("jti", "t-1")])
async def test_a_revocation_is_listed_and_taken_back(http: httpx.AsyncClient, claim: str, value: str) -> None:
    alice, url = bearing(token("alice", ALICE, jti="t-1")), "/v1/revocations"
    named = {"claim": claim, "value": value}

    async def says(status: int) -> bool:
        return (await http.get(OPS, headers=alice)).status_code == status

    assert (await http.delete(url, params=named, headers=admin())).status_code == 404
    made = await http.post(url, json=named | {"for_s": 60}, headers=admin())
    assert made.status_code == 201
    await eventually(lambda: says(401), "alice is out")
    listed = await http.get(url, headers=admin())
    assert listed.json() == {"revocations": [made.json()], "next_cursor": None}
    assert made.json().items() > named.items()
    assert made.json()["until"].endswith("Z")
    assert (await http.delete(url, params=named, headers=admin())).status_code == 204
    await eventually(lambda: says(200), "alice is in")
    assert (await http.get(url, headers=admin())).json()["revocations"] == []
    assert (await http.delete(url, params=named, headers=admin())).status_code == 404
    assert (await http.post(url, json=named, headers=admin())).status_code == 201
    await eventually(lambda: says(401), "alice is out again")


async def test_revocations_come_in_pages(http: httpx.AsyncClient, store: Store) -> None:
    for number in range(5):
        await revoke_claim(store, "sub", f"p{number}", 60 + number)
    await restore_claim(store, "sub", "p2")
    told, cursor, pages = [], "0", 0
    while cursor is not None:
        page = (await http.get("/v1/revocations", params={"limit": 2, "cursor": cursor}, headers=admin())).json()
        told += [it["value"] for it in page["revocations"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert told == ["p4", "p3", "p1", "p0"]
    assert pages >= 3


@pytest.mark.parametrize(
    "body", [{}, {"claim": "sub"}, {"claim": "aud", "value": "x"}, {"claim": "sub", "value": "x", "for_s": 1e9}]
)
async def test_a_revocation_of_nothing_is_rejected(http: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await http.post("/v1/revocations", json=body, headers=admin())).status_code == 422
    assert (await http.get("/v1/revocations", headers=admin())).json()["revocations"] == []


class Clock:
    now = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


class TestTheDenyList:
    async def test_replicas_learn_of_it_and_forget_it_in_time(self, store: Store) -> None:
        now = time.time()
        clock = Clock()
        clock.now = now
        replica = DenyList(store, 1, clock)
        await replica.refresh()
        assert not replica.is_revoked("alice", None)
        await revoke_claim(store, "sub", "alice", 60)
        await revoke_claim(store, "jti", "alice", 30)
        await replica.refresh()
        assert replica.is_revoked("alice", None)
        assert replica.is_revoked("bob", "alice")
        assert not replica.is_revoked("bob", "bob")
        clock.now = now + 45
        assert not replica.is_revoked("bob", "alice")
        assert replica.is_revoked("alice", "x")
        clock.now = now + 100
        await replica.refresh()
        assert len(replica) == 0

    async def test_denying_again_does_not_shorten_it(self, store: Store) -> None:
        clock = Clock()
        clock.now = time.time()
        await revoke_claim(store, "sub", "alice", 600)
        await revoke_claim(store, "sub", "alice", 1)
        replica = DenyList(store, 1, clock)
        await replica.refresh()
        clock.now += 60
        assert replica.is_revoked("alice", None)

    async def test_what_redis_lost_is_still_known(self, store: Store) -> None:
        replica = DenyList(store, 1)
        await revoke_claim(store, "sub", "alice", 60)
        await replica.refresh()
        prefix = store.keyspace.prefix
        await store.connections.commands.delete(denied_key(prefix), meta_key(prefix))
        await replica.refresh()
        assert replica.is_revoked("alice", None)
        await revoke_claim(store, "sub", "bob", 60)
        await replica.refresh()
        assert replica.is_revoked("bob", None)
        assert replica.is_revoked("alice", None)

    async def test_it_is_read_only_when_it_has_changed(self, store: Store) -> None:
        replica = DenyList(store, 1)
        await revoke_claim(store, "sub", "alice", 60)
        await replica.refresh()
        await store.connections.commands.delete(denied_key(store.keyspace.prefix))
        await replica.refresh()
        assert replica.is_revoked("alice", None)

    async def test_what_was_taken_back_counts_again_also_where_redis_had_lost_it(self, store: Store) -> None:
        replica = DenyList(store, 1)
        for name in ("alice", "bob", "carol"):
            await revoke_claim(store, "sub", name, 60)
        await replica.refresh()
        assert await restore_claim(store, "sub", "alice")
        await replica.refresh()
        assert not replica.is_revoked("alice", None)
        prefix = store.keyspace.prefix
        await store.connections.commands.delete(denied_key(prefix), meta_key(prefix))
        assert not await restore_claim(store, "sub", "bob"), "Redis knows of it no more"
        await replica.refresh()
        assert not replica.is_revoked("bob", None)
        assert replica.is_revoked("carol", None)

    async def test_what_is_revoked_and_taken_back_at_once_is_one_or_the_other(self, store: Store) -> None:
        for _ in range(50):
            calls = (revoke_claim(store, "sub", "alice", 60), restore_claim(store, "sub", "alice"))
            await asyncio.gather(*calls, *(revoke_claim(store, "jti", f"t-{number}", 60) for number in range(3)))
            alices = {b"sub:alice", b"-sub:alice"}
            told = await store.connections.commands.zrange(denied_key(store.keyspace.prefix), 0, -1)
            assert len(alices.intersection(told)) == 1

    async def test_what_is_revoked_after_redis_lost_all_is_learned_however_often_that_was_before(
        self, store: Store
    ) -> None:
        replica = DenyList(store, 1)
        await revoke_claim(store, "sub", "alice", 60)
        await replica.refresh()
        prefix = store.keyspace.prefix
        await store.connections.commands.delete(denied_key(prefix), meta_key(prefix))
        await revoke_claim(store, "sub", "bob", 60)
        await replica.refresh()
        assert replica.is_revoked("bob", None)

    async def test_who_revokes_may_have_a_clock_that_is_wrong(self, store: Store, monkeypatch: Any) -> None:
        for wrong_s in (-3_600, 3_600):
            await revoke_claim(store, "sub", "bob", 60)
            with monkeypatch.context() as patched:
                wrong = SimpleNamespace(time=lambda wrong_s=wrong_s: time.time() + wrong_s)
                patched.setattr("progress_broker.access.deny_list.time", wrong)
                until = (await revoke_claim(store, "sub", "alice", 60)).until
            assert abs(until - time.time() - 60) < 5
            replica = DenyList(store, 1)
            await replica.refresh()
            assert replica.is_revoked("alice", None)
            assert replica.is_revoked("bob", None)

    async def test_what_was_taken_back_may_be_denied_again(self, store: Store) -> None:
        replica = DenyList(store, 1)
        await revoke_claim(store, "sub", "alice", 600)
        await restore_claim(store, "sub", "alice")
        again = await revoke_claim(store, "sub", "alice", 60)
        await replica.refresh()
        assert replica.is_revoked("alice", None)
        assert await list_revoked(store, 0, 10) == ([RevokedClaim("sub", "alice", again.until)], None)
        assert again.until < time.time() + 61


async def test_a_thousand_who_come_at_once_cost_one_read(store: Store) -> None:
    from progress_broker.access.fact_cache import AttributeCache
    from progress_broker.model.grants import ResourceAttributes
    from progress_broker.model.operation import NewOperation

    class Counting:
        settings = store.settings
        reads = 0

        async def attributes(self, operation: str) -> ResourceAttributes | None:
            self.reads += 1
            return await store.attributes(operation)

    await store.create(NewOperation(id="a", owner="alice", kind="k", tags=["t"]))
    counting = Counting()
    cache = AttributeCache(counting)  # type: ignore[arg-type]
    found = await asyncio.gather(*(cache.get("a", lambda facts: facts.owner == "alice") for _ in range(1_000)))
    found += [await cache.get("a", lambda facts: facts.owner == "alice")]
    assert all(it == found[0] for it in found)
    assert found[0] == ResourceAttributes("a", "alice", "k", ["t"], [])
    assert counting.reads == 1
    await cache.get("a", lambda facts: facts.owner == "bob")
    assert counting.reads > 1  # without permission the rejection takes as long as for an unknown operation
    counting.reads = 0
    assert await cache.get("b", lambda _: True) is None
    unknown, counting.reads = counting.reads, 0
    await cache.get("a", lambda _: False)
    assert counting.reads == unknown


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_who_may_not_know_waits_for_an_operation_by_coming_back(http: httpx.AsyncClient, accept: str) -> None:
    alice = bearing(token("alice", ALICE))
    await create(http, "bobs", bearing(token("bob", ALICE)))
    answers = [
        await http.get(f"{OPS}/{id}/stream", params={"wait_s": 5}, headers=alice | {"Accept": accept})
        for id in ("bobs", "none")
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    assert b'event: reconnect\ndata: {"reason":"not-found"}' in answers[0].content
    cookie = {"Cookie": f"{COOKIE}={token('alice', ALICE)}"}
    await create(http, "none", alice)
    async with http.stream("GET", f"{OPS}/none/stream", params={"wait_s": 5}, headers=cookie) as stream:
        assert stream.status_code == 200
