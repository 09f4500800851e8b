"""Tickets: what they open, for how long, on which replica; and invalid tickets."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from starlette.requests import HTTPConnection

from progress_broker.access.shared_secret import SharedSecret
from progress_broker.errors import TooLarge, Unauthenticated
from progress_broker.model.grants import Action, Facts, Grant, Grants, granted
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_server.auth.principal import Principal
from progress_server.auth.tickets import Tickets
from tests.api.proofs import ALICE, bearing, create, secured, token, told

OPS = "/v1/operations"
READER = Principal("alice", Grants((granted(["read", "cancel"], owners=["alice"]),)), 5_000, "t1")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def secret() -> bytes:
    return b"s" * 32


def at(path: str, method: str = "GET", type: str = "http") -> HTTPConnection:
    return HTTPConnection({"type": type, "method": method, "path": path, "headers": [], "query_string": b""})


STREAM = at("/v1/operations/a/stream")


class TestOneTicket:
    def setup_method(self) -> None:
        self.clock = Clock()
        self.tickets = Tickets(secret, 60, self.clock)

    async def test_it_carries_who_got_it_and_no_more_than_reading_that(self) -> None:
        ticket, expires_at = await self.tickets.for_operation(READER, "a")
        assert expires_at == 1_060
        for path in ("stream", "events", "ws"):
            taken = await self.tickets.take(at(f"/v1/operations/a/{path}"), ticket)
            assert (taken.name, taken.expires_at, taken.token_id) == ("alice", 5_000, "t1")
            assert taken.grants == Grants((Grant(frozenset({Action.READ}), ids=frozenset({"a"})),))

    @pytest.mark.parametrize(
        "call",
        [
            at("/v1/operations/b/stream"),
            at("/v1/operations/a"),
            at("/v1/operations"),
            at("/v1/stream"),
            at("/v1/ws"),
            at("/metrics"),
            at("/v1/operations/a/stream/"),
            at("/v1/operations/a/events", "POST"),
            at("/v1/operations/a/tickets", "POST"),
        ],
        ids=lambda call: f"{call.scope['method']} {call.scope['path']}",
    )
    async def test_it_opens_nothing_else(self, call: HTTPConnection) -> None:
        ticket, _ = await self.tickets.for_operation(READER, "a")
        with pytest.raises(Unauthenticated, match="ticket"):
            await self.tickets.take(call, ticket)

    async def test_it_expires_and_never_outlasts_the_token(self) -> None:
        ticket, _ = await self.tickets.for_operation(READER, "a")
        self.clock.now = 1_059.9
        await self.tickets.take(STREAM, ticket)
        self.clock.now = 1_060
        with pytest.raises(Unauthenticated, match="expired"):
            await self.tickets.take(STREAM, ticket)
        short = Principal("alice", READER.grants, 1_070)
        assert (await self.tickets.for_operation(short, "a"))[1] == 1_070

    async def test_no_part_of_it_can_be_changed(self) -> None:
        ticket, _ = await self.tickets.for_operation(READER, "a")
        payload, _, signature = ticket.partition(".")
        told = orjson.loads(urlsafe_b64decode(payload + "=="))
        other = urlsafe_b64encode(orjson.dumps(told | {"e": 9_999})).decode().rstrip("=")
        for bad in (f"{other}.{signature}", f"{payload}.", payload, f".{signature}", "", ".", "é", "x" * 5_000):
            with pytest.raises(Unauthenticated):
                await self.tickets.take(STREAM, bad)
        for i in range(len(ticket)):
            with pytest.raises(Unauthenticated):
                await self.tickets.take(STREAM, ticket[:i] + ("A" if ticket[i] != "A" else "B") + ticket[i + 1 :])

    async def test_another_secret_does_not_take_it(self) -> None:
        async def another() -> bytes:
            return b"t" * 32

        ticket, _ = await self.tickets.for_operation(READER, "a")
        with pytest.raises(Unauthenticated):
            await Tickets(another, 60, self.clock).take(STREAM, ticket)

    async def test_one_for_many_keeps_the_grants_and_what_it_was_limited_to(self) -> None:
        limit = granted(["read"], kinds=["import"])
        ticket, _ = await self.tickets.for_many(READER, READER.grants.narrowed(limit))
        for path in ("/v1/stream", "/v1/ws"):
            taken = (await self.tickets.take(at(path), ticket)).grants
            assert taken.allows(Action.READ, Facts("x", "alice", "import"))
            assert not taken.allows(Action.READ, Facts("x", "alice", "export"))
            assert not taken.allows(Action.READ, Facts("x", "bob", "import"))
            assert not taken.allows(Action.CANCEL, Facts("x", "alice", "import"))
        with pytest.raises(Unauthenticated):
            await self.tickets.take(STREAM, ticket)

    async def test_one_that_no_url_could_hold_is_refused(self) -> None:
        many = Grants((granted(["read"], ids=[f"operation-{i}" for i in range(500)]),))
        with pytest.raises(TooLarge):
            await self.tickets.for_many(READER, many)


async def test_replicas_agree_on_a_secret(store: Store) -> None:
    one, two = SharedSecret(store), SharedSecret(store)
    assert await one.get() == await two.get() == await one.get()
    assert len(await one.get()) >= 32


async def test_a_secret_that_redis_lost_is_made_anew_for_all(store: Store) -> None:
    clock = Clock()
    one, two = SharedSecret(store, clock), SharedSecret(store, clock)
    before = await one.get()
    await store.connections.commands.delete(f"{store.keyspace.prefix}:secrets")
    clock.now += 60
    assert await two.get() == await one.get() != before


class TestOverHttp:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return secured(tmp_path, sweep_s=0.2)

    async def test_it_opens_the_stream_it_is_for(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE))
        await create(http, "a", alice)
        answer = await http.post(f"{OPS}/a/tickets", headers=alice)
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        assert set(answer.json()) == {"ticket", "expires_at"}
        ticket = {"ticket": answer.json()["ticket"]}
        async with http.stream("GET", f"{OPS}/a/stream", params=ticket) as stream:
            assert stream.status_code == 200
        assert (await http.get(f"{OPS}/a/events", params=ticket)).status_code == 200
        refused = await http.get(f"{OPS}/a", params=ticket)
        assert (refused.status_code, refused.json()["type"]) == (401, "unauthenticated")

    async def test_what_is_no_ticket_is_refused_like_any_other_proof(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE))
        await create(http, "a", alice)
        good = (await http.post(f"{OPS}/a/tickets", headers=alice)).json()["ticket"]
        usual = await http.get(f"{OPS}/a/stream")
        for bad in (good[:-1], good[1:], "", token("alice", ALICE), "x.y"):
            answer = await http.get(f"{OPS}/a/stream", params={"ticket": bad})
            assert (answer.status_code, answer.content) == (401, usual.content)
            assert told(answer) == told(usual)
        as_token = await http.get(f"{OPS}/a/stream", headers=bearing(good))
        assert (as_token.status_code, as_token.content) == (401, usual.content)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b'{"operations": []}',
            b'{"operations": ["a"], "query": {}}',
            b'{"operations": ["a b"]}',
            b'{"x": 1}',
        ],
    )
    async def test_a_ticket_says_what_it_is_for(self, http: httpx.AsyncClient, body: bytes) -> None:
        answer = await http.post("/v1/tickets", content=body, headers=bearing(token("alice", ALICE)))
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid")

    async def test_one_for_a_query_is_given_to_all(self, http: httpx.AsyncClient) -> None:
        asked: dict[str, Any] = {"query": {"owner": "alice", "kind": "import"}}
        answer = await http.post("/v1/tickets", json=asked, headers=bearing(token("bob", ALICE)))
        assert answer.status_code == 201  # it does not show bob what he may not read
