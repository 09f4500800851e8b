"""Tickets: what they open, for how long, on which replica; and invalid tickets."""

import hashlib
import hmac
import json
import math
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from starlette.requests import HTTPConnection

from progress_broker.access.shared_secret import SharedSecret
from progress_broker.errors import TooLarge, Unauthenticated
from progress_broker.model.grants import Action, Grant, Grants, ResourceAttributes, granted
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_server.auth.jwt import TICKET_TYPE, JwtBearer
from progress_server.auth.keys import Key
from progress_server.auth.principal import Principal
from progress_server.auth.tickets import AUDIENCE, ISSUER, MAX_TICKET, Tickets
from tests.api.proofs import ALICE, bearing, create, secured, token, told
from tests.conftest import make_settings

OPS = "/v1/operations"
LATER = time.time() + 5_000.5
READER = Principal("alice", Grants((granted(["read", "cancel"], owners=["alice"]),)), LATER, "t1")
SECRET = b"s" * 32
TICKET_KEY = hmac.digest(SECRET, b"progress-broker ticket 1", hashlib.sha256)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def secret() -> bytes:
    return SECRET


def at(path: str, method: str = "GET", type: str = "http") -> HTTPConnection:
    return HTTPConnection({"type": type, "method": method, "path": path, "headers": [], "query_string": b""})


STREAM = at("/v1/operations/a/stream")


class TestOneTicket:
    def setup_method(self) -> None:
        self.tickets = Tickets(secret, 60)

    async def test_it_carries_who_got_it_and_no_more_than_reading_that(self) -> None:
        ticket, _ = await self.tickets.for_operation(READER, "a")
        for path in ("stream", "events", "ws"):
            taken = await self.tickets.verify(at(f"/v1/operations/a/{path}"), ticket)
            assert (taken.name, taken.expires_at, taken.token_id) == ("alice", LATER, "t1")
            assert taken.grants == Grants((Grant(frozenset({Action.READ}), ids=frozenset({"a"})),))

    async def test_it_is_a_token_of_its_own_type_that_says_what_it_is_for(self) -> None:
        before = time.time()
        ticket, expires_at = await self.tickets.for_operation(READER, "a")
        assert before + 60 <= expires_at <= time.time() + 61
        assert jwt.get_unverified_header(ticket) == {"alg": "HS256", "typ": TICKET_TYPE}
        claims = jwt.decode(ticket, TICKET_KEY, ["HS256"], audience=AUDIENCE)
        assert claims.pop("jti") != jwt.decode((await self.tickets.for_operation(READER, "a"))[0], **UNVERIFIED)["jti"]
        assert claims == {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": expires_at,
            "opens": {"operation": "a"},
            "proof_exp": LATER,
            "proof_jti": "t1",
        }

    async def test_one_of_credentials_without_expiry_and_id_has_neither(self) -> None:
        ticket, _ = await self.tickets.for_operation(Principal("worker", READER.grants), "a")
        taken = await self.tickets.verify(STREAM, ticket)
        assert (taken.name, taken.expires_at, taken.token_id) == ("worker", None, None)

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
            await self.tickets.verify(call, ticket)

    async def test_it_expires_and_never_outlasts_the_token(self) -> None:
        ticket, expires_at = await Tickets(secret, -1).for_operation(READER, "a")
        assert expires_at <= time.time()
        with pytest.raises(Unauthenticated, match="expired"):
            await self.tickets.verify(STREAM, ticket)
        ends = time.time() + 10.5
        _, expires_at = await self.tickets.for_operation(Principal("alice", READER.grants, ends), "a")
        assert expires_at == math.floor(ends)

    async def test_no_part_of_it_can_be_changed(self) -> None:
        ticket, _ = await self.tickets.for_operation(READER, "a")
        header, _, signature = ticket.split(".")
        other = encoded(jwt.decode(ticket, **UNVERIFIED) | {"sub": "bob"})
        unsigned = ticket.rpartition(".")[0]
        for bad in (f"{header}.{other}.{signature}", f"{header}..{signature}", unsigned, f"{unsigned}.", "", "..", "é"):
            with pytest.raises(Unauthenticated):
                await self.tickets.verify(STREAM, bad)
        for i in range(len(ticket)):
            with pytest.raises(Unauthenticated):
                await self.tickets.verify(STREAM, ticket[:i] + ("A" if ticket[i] != "A" else "B") + ticket[i + 1 :])

    async def test_another_secret_does_not_take_it(self) -> None:
        async def another() -> bytes:
            return b"t" * 32

        ticket, _ = await self.tickets.for_operation(READER, "a")
        with pytest.raises(Unauthenticated):
            await Tickets(another, 60).verify(STREAM, ticket)

    async def test_one_for_many_keeps_the_grants_and_what_it_was_limited_to(self) -> None:
        limit = granted(["read"], kinds=["import"])
        ticket, _ = await self.tickets.for_many(READER, READER.grants.narrowed(limit))
        for path in ("/v1/stream", "/v1/ws"):
            taken = (await self.tickets.verify(at(path), ticket)).grants
            assert taken.allows(Action.READ, ResourceAttributes("x", "alice", "import"))
            assert not taken.allows(Action.READ, ResourceAttributes("x", "alice", "export"))
            assert not taken.allows(Action.READ, ResourceAttributes("x", "bob", "import"))
            assert not taken.allows(Action.CANCEL, ResourceAttributes("x", "alice", "import"))
        with pytest.raises(Unauthenticated):
            await self.tickets.verify(STREAM, ticket)

    async def test_one_that_no_url_could_hold_is_rejected(self) -> None:
        many = Grants((granted(["read"], ids=[f"operation-{i}" for i in range(500)]),))
        with pytest.raises(TooLarge):
            await self.tickets.for_many(READER, many)


UNVERIFIED: dict[str, Any] = {"options": {"verify_signature": False}}
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "jti": "1", "opens": {"operation": "a"}}


def encoded(part: object) -> str:
    return urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).decode().rstrip("=")


def signed(header: dict[str, Any] | None = None, **claims: Any) -> str:
    """Return a token that the key of tickets signs: a ticket, but for what is said otherwise; None omits a claim."""
    told = {name: it for name, it in (CLAIMS | {"exp": time.time() + 60} | claims).items() if it is not None}
    head = {"alg": "HS256", "typ": TICKET_TYPE} | (header or {})
    text = f"{encoded(head)}.{encoded(told)}"
    unsigned = head["alg"] == "none"
    return f"{text}.{'' if unsigned else encoded(hmac.digest(TICKET_KEY, text.encode(), 'sha' + head['alg'][2:]))}"


class TestWhatIsNoTicket:
    """Whatever the key of tickets may ever have signed: it is a ticket only if it says so."""

    TICKETS = Tickets(secret, 60)

    async def test_what_the_others_differ_from_is_one(self) -> None:
        assert (await self.TICKETS.verify(STREAM, signed())).name == "alice"

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param(lambda: signed({"typ": "JWT"}), id="an access token"),
            pytest.param(lambda: signed({"typ": "at+jwt"}), id="an access token that says so"),
            pytest.param(lambda: signed({"typ": ""}), id="of no type"),
            pytest.param(lambda: signed({"alg": "HS384"}), id="another algorithm"),
            pytest.param(lambda: signed({"alg": "none"}), id="no algorithm"),
            pytest.param(lambda: signed({"crit": ["more"], "more": 1}), id="an unknown critical header"),
            pytest.param(lambda: signed(exp=time.time() - 1), id="expired"),
            pytest.param(lambda: signed(exp=None), id="without an end"),
            pytest.param(lambda: signed(exp="later"), id="an end that is none"),
            pytest.param(lambda: signed(exp=1e400), id="an end that is infinite"),
            pytest.param(lambda: signed(nbf=time.time() + 60), id="not yet valid"),
            pytest.param(lambda: signed(iat=time.time() + 60), id="issued later"),
            pytest.param(lambda: signed(aud="others"), id="another audience"),
            pytest.param(lambda: signed(aud=[AUDIENCE, "others"]), id="several audiences"),
            pytest.param(lambda: signed(aud=None), id="no audience"),
            pytest.param(lambda: signed(iss="others"), id="another issuer"),
            pytest.param(lambda: signed(sub=None), id="nobody's"),
            pytest.param(lambda: signed(jti=None), id="without an id"),
            pytest.param(lambda: signed(opens=None), id="without a purpose"),
            pytest.param(lambda: signed(opens={"operation": "b"}), id="for another operation"),
            pytest.param(lambda: signed(opens={"grants": [], "limits": []}), id="for a stream of many"),
            pytest.param(lambda: signed(more="x" * MAX_TICKET), id="huge"),
            pytest.param(lambda: f"{'[' * (MAX_TICKET - 9)}.a.b", id="deep, and no base64"),
            pytest.param(lambda: f"{encoded(b'[' * 3_000)}.AAAA.AAAA", id="deep"),
        ],
    )
    async def test_is_rejected(self, token: Any) -> None:
        with pytest.raises(Unauthenticated):
            await self.TICKETS.verify(STREAM, token())

    @pytest.mark.parametrize("settings", [{}, {"jwt_audience": AUDIENCE, "jwt_issuer": ISSUER}])
    async def test_a_ticket_is_no_access_token(self, settings: dict[str, Any]) -> None:
        """Not even where the operator set the same key, audience and issuer for access tokens."""

        async def find_key(_: str | None) -> Key:
            return Key("HS256", TICKET_KEY)

        access = JwtBearer(make_settings(**settings), find_key)
        with pytest.raises(Unauthenticated, match="ticket"):
            await access.verify((await self.TICKETS.for_operation(READER, "a"))[0])
        if settings:
            assert (await access.verify(signed({"typ": "JWT"}))).name == "alice"


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
        return secured(tmp_path, sweep_interval_s=0.2)

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
        rejected = await http.get(f"{OPS}/a", params=ticket)
        assert (rejected.status_code, rejected.json()["type"]) == (401, "unauthenticated")

    async def test_what_is_no_ticket_is_rejected_like_any_other_proof(self, http: httpx.AsyncClient) -> None:
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
