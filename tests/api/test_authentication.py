"""Authentication: valid credentials are accepted, and all invalid ones get the same response."""

import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from progress_broker.errors import SetupError, Unauthenticated
from progress_broker.settings import Settings
from progress_server.auth.guard import Guard
from progress_server.observability.logs import LINES_A_SECOND, RejectionLog
from tests.api.proofs import ALICE, AUDIENCE, COOKIE, KEY, SECRET, bearing, create, secured, token, told
from tests.conftest import make_settings

OPS = "/v1/operations"
FRIEND = "https://friend.example"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any) -> str:
    text: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return text.decode()


def unsigned(**header: Any) -> str:
    parts = ({"alg": "none", "typ": "JWT"} | header, {"sub": "alice", "aud": AUDIENCE, "exp": time.time() + 60})
    return ".".join(urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=") for part in parts) + "."


def signed_with_text(text: str) -> str:
    """Return a token whose HMAC secret is a public key's text, as an attacker who knows only that would make it."""
    import hashlib
    import hmac

    head, body, _ = token("alice", ALICE).split(".")
    signature = hmac.digest(text.encode(), f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


def tampered(proof: str) -> str:
    return proof[:-3] + ("AAA" if proof[-3:] != "AAA" else "BBB")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, cors_origins=FRIEND)


BAD: dict[str, Callable[[], dict[str, str]]] = {
    "none at all": dict,
    "no token": lambda: {"Authorization": "Bearer"},
    "another scheme": lambda: {"Authorization": "Basic YTpi"},
    "no JWT": lambda: bearing("hello"),
    "alg none": lambda: bearing(unsigned()),
    "lines for the log in its header": lambda: bearing(unsigned(alg="HS256", crit=["x\nINFO: root is let in" * 99])),
    "another audience": lambda: bearing(token("alice", ALICE, aud="others")),
    "no audience": lambda: bearing(token("alice", ALICE, aud=None)),
    "expired": lambda: bearing(token("alice", ALICE, exp=time.time() - 1)),
    "not yet": lambda: bearing(token("alice", ALICE, nbf=time.time() + 60)),
    "without an end": lambda: bearing(token("alice", ALICE, exp=None)),
    "another key": lambda: bearing(token("alice", ALICE, key="another secret that is long enough, too")),
    "another algorithm": lambda: bearing(token("alice", ALICE, algorithm="HS512", key=SECRET * 2)),
    "RSA instead": lambda: bearing(token("alice", ALICE, key=RSA, algorithm="RS256")),
    "tampered": lambda: bearing(tampered(token("alice", ALICE))),
    "nobody's": lambda: bearing(token("", ALICE)),
    "without a name": lambda: bearing(jwt.encode({"aud": AUDIENCE, "exp": time.time() + 60}, SECRET)),
    "control characters": lambda: bearing(token("a\nb", ALICE)),
    "grants that are none": lambda: bearing(token("alice", grants=[{"actions": ["fly"]}])),
    "a grant of unknown selectors": lambda: bearing(token("alice", grants=[{"actions": ["read"], "owner": ["x"]}])),
    "too long": lambda: bearing(token("alice", ALICE, more="x" * 8_000)),
    "no such API key": lambda: bearing(KEY + "x"),
    "a cookie of nobody": lambda: {"Cookie": f"{COOKIE}={tampered(token('alice', ALICE))}"},
    "another cookie": lambda: {"Cookie": f"other={token('alice', ALICE)}"},
}


def seen(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    status, headers = told(answer)
    return status, answer.content, headers


async def test_whatever_is_wrong_the_answer_is_the_same(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("progress_server.observability.logs.LINES_A_SECOND", 1_000)
    caplog.set_level(logging.INFO, "progress_server.observability.logs")
    usual = seen(await http.get(OPS))
    assert usual[0] == 401
    assert usual[2]["www-authenticate"] == "Bearer"
    sent = []
    for why, headers in BAD.items():
        given = headers()
        sent += [value[-20:] for value in given.values() if len(value) > 60]
        assert seen(await http.get(OPS, headers=given)) == usual, why
        assert seen(await http.get(f"{OPS}/a/stream", headers=given | {"Accept": "text/event-stream"})) == usual, why
    assert len(caplog.records) == 2 * len(BAD) + 1
    assert sent
    assert not [line for line in caplog.messages if "\n" in line or len(line) > 400]
    assert not [part for part in sent if part in caplog.text]
    good = await http.get(OPS, headers=bearing(token("alice", ALICE)))
    assert good.status_code == 200


@pytest.mark.parametrize("name", ["token", "access_token", "ticket"])
async def test_a_token_in_the_url_is_rejected(http: httpx.AsyncClient, name: str) -> None:
    usual = seen(await http.get(OPS))
    good = token("alice", ALICE)
    assert seen(await http.get(f"{OPS}/a/stream", params={name: good})) == usual
    assert seen(await http.get(OPS, params={name: good}, headers=bearing(good))) == usual


class TestKeys:
    @pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
    async def test_public_keys_check_their_own_algorithm_alone(self, tmp_path: Path, key: Any, algorithm: str) -> None:
        path = tmp_path / "key.pem"
        path.write_text(pem(key))
        for given in (pem(key), f"@{path}"):
            guard = Guard(secured(tmp_path, jwt_key=given))
            assert await admits(guard, token("alice", key=key, algorithm=algorithm)) == "alice"
            # A classic attack: use the public key, which everybody has, as the HMAC secret.
            assert await admits(guard, signed_with_text(pem(key))) is None
            assert await admits(guard, signed_with_text(pem(key).strip())) is None
            assert await admits(guard, token("alice")) is None

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"jwt_key": "short"}, "32"),
            ({"jwt_key": None, "api_keys": None}, "PROGRESS_JWT_KEY"),
            ({"jwt_key": "@/nowhere/at/all"}, "/nowhere/at/all"),
            ({"jwt_key": "-----BEGIN PUBLIC KEY-----\nxx\n-----END PUBLIC KEY-----"}, "PEM"),
            ({"jwt_key": "-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----"}, "private"),
            ({"jwt_key": "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 a key of some sort"}, "SSH"),
            ({"jwt_algorithms": "none"}, "HS256"),
            ({"jwt_algorithms": "RS256"}, "HS256"),
            ({"jwt_jwks": "https://example.org/keys"}, "both"),
            ({"jwt_key": None, "jwt_jwks": "http://example.org/keys"}, "https"),
            ({"jwt_key": None, "jwt_jwks": "https://example.org/keys", "jwt_audience": None}, "AUDIENCE"),
            ({"api_keys": Path("/nowhere/keys.toml")}, "/nowhere/keys.toml"),
            ({"jwt_key": None, "jwt_jwks": "/nowhere/keys.json", "jwt_audience": "a"}, "/nowhere/keys.json"),
            ({"auth": "none"}, "PROGRESS_API_KEYS"),
            ({"auth": "none", "api_keys": None}, "PROGRESS_JWT_KEY"),
            ({"auth": "none", "api_keys": None, "jwt_key": None, "jwt_jwks": "https://example.org/keys"}, "JWKS"),
            (
                {"auth": "none", "api_keys": None, "jwt_key": None, "callback_url": "https://example.org/hook"},
                "CALLBACK_URL",
            ),
        ],
    )
    def test_what_can_not_be_right_keeps_it_from_starting(
        self, tmp_path: Path, changes: dict[str, Any], word: str
    ) -> None:
        with pytest.raises(SetupError, match=word) as rejected:
            Guard(secured(tmp_path, **changes))
        assert SECRET not in rejected.value.detail

    @pytest.mark.parametrize(
        "text", ['{"keys": [{"name": "a", "sha256": "x", "grants": []}]}', "{", '{"keys": 3}', "[]"]
    )
    def test_a_key_file_that_is_none_is_told(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "keys.json"
        path.write_text(text)
        with pytest.raises(SetupError, match="key file"):
            Guard(make_settings(auth="jwt", api_keys=path))


async def admits(
    guard: Guard, proof: str | None = None, *, type: str = "http", given: dict[str, str] | None = None
) -> str | None:
    """Return the principal that a guard finds in credentials, or None if it rejects them."""
    from starlette.requests import HTTPConnection

    lines = (given or {}) | ({"authorization": f"Bearer {proof}"} if proof is not None else {})
    headers = [(name.encode(), value.encode()) for name, value in lines.items()]
    scope = {"type": type, "method": "GET", "path": OPS, "query_string": b"", "headers": headers}
    try:
        return (await guard.authenticate(HTTPConnection(scope))).name
    except Unauthenticated:
        return None


class TestCookies:
    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Fetch-Site": "same-origin"}, 201),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Origin": "{own}"}, 403),
            ({"Sec-Fetch-Site": "cross-site", "Origin": FRIEND}, 201),
            ({"Sec-Fetch-Site": "none"}, 401),
            ({"Origin": "{own}"}, 201),
            ({"Origin": "https://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({}, 401),
        ],
    )
    async def test_what_changes_something_comes_from_our_own_pages(
        self, http: httpx.AsyncClient, headers: dict[str, str], status: int
    ) -> None:
        cookie = {"Cookie": f"{COOKIE}={token('alice', ALICE)}"}
        given = {name: value.replace("{own}", str(http.base_url).rstrip("/")) for name, value in headers.items()}
        assert (await http.post(OPS, json={}, headers=cookie | given)).status_code == status
        assert (await http.get(OPS, headers=cookie | given)).status_code == 200

    @pytest.mark.parametrize(
        ("headers", "name"),
        [
            ({"sec-fetch-site": "same-origin"}, "alice"),
            ({"origin": "http://here", "host": "here"}, "alice"),
            ({"origin": FRIEND, "host": "here"}, "alice"),
            ({"origin": "https://evil.example", "host": "here"}, None),
            ({}, None),
        ],
    )
    async def test_so_does_a_websocket(self, settings: Settings, headers: dict[str, str], name: str | None) -> None:
        given = {"cookie": f"{COOKIE}={token('alice', ALICE)}"} | headers
        assert await admits(Guard(settings), type="websocket", given=given) == name

    async def test_the_header_comes_before_the_cookie(self, http: httpx.AsyncClient) -> None:
        both = {"Cookie": f"{COOKIE}={token('bob', ALICE)}"} | bearing(token("alice", ALICE))
        assert (await http.post(OPS, json={}, headers=both)).json()["owner"] == "alice"


class TestGrants:
    async def test_what_one_creates_is_one_s_own(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE))
        assert (await create(http, "a", alice))["owner"] == "alice"
        assert (await create(http, "a", alice))["owner"] == "alice"  # the same again
        rejected = await http.post(OPS, json={"owner": "bob"}, headers=alice)
        assert (rejected.status_code, rejected.json()["type"]) == (403, "forbidden")
        wider = bearing(token("alice", ALICE, grants=[{"actions": ["create"], "owners": ["bob"]}]))
        assert (await create(http, "b", wider, owner="bob"))["owner"] == "bob"

    async def test_who_may_not_read_learns_no_more_than_that_an_id_is_taken(self, http: httpx.AsyncClient) -> None:
        maker = bearing(token("maker", grants=[{"actions": ["create"], "kinds": ["k"]}]))
        await create(http, "a", maker, kind="k", owner="x")
        again = await http.post(OPS, json={"id": "a", "kind": "k", "owner": "x"}, headers=maker)
        assert (again.status_code, again.json()["type"]) == (409, "operation-exists")

    async def test_a_parent_has_to_be_one_that_may_be_published_to(self, http: httpx.AsyncClient) -> None:
        alice, bob = bearing(token("alice", ALICE)), bearing(token("bob", ALICE))
        await create(http, "alices", alice)
        await create(http, "bobs", bob)
        answers = [await http.post(OPS, json={"parent": parent}, headers=bob) for parent in ("alices", "nobody")]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content.replace(b"alices", b"nobody") == answers[1].content
        reader = bearing(token("bob", ALICE, grants=[{"actions": ["read"], "owners": ["alice"]}]))
        assert (await http.post(OPS, json={"parent": "alices"}, headers=reader)).status_code == 403
        assert (await http.post(OPS, json={"parent": "bobs"}, headers=bob)).status_code == 201

    async def test_children_are_listed_to_who_may_read_them(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE))
        await create(http, "parent", alice)
        worker = bearing(token("w", grants=[{"actions": ["create", "publish"]}]))
        await create(http, "hers", alice, parent="parent")
        await create(http, "theirs", worker, parent="parent")
        shown = (await http.get(f"{OPS}/parent", params={"include": "children"}, headers=alice)).json()["children"]
        assert shown["total"] == 2
        assert [it["id"] for it in shown["operations"]] == ["hers"]

    async def test_by_is_who_it_was(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE))
        await create(http, "a", alice)
        await http.post(f"{OPS}/a/events", json={"type": "progress", "data": {}}, headers=alice)
        shown = await http.post(f"{OPS}/a/cancel", json={"by": "the king"}, headers=alice)
        assert shown.json()["cancel"]["by"] == "alice"

    async def test_a_deleted_one_is_gone_to_who_might_read_it(self, http: httpx.AsyncClient) -> None:
        alice = bearing(token("alice", ALICE + " admin"))
        await create(http, "a", alice)
        assert (await http.delete(f"{OPS}/a", params={"force": True}, headers=alice)).status_code == 204
        assert (await http.get(f"{OPS}/a", headers=alice)).status_code == 410
        assert (await http.get(f"{OPS}/a", headers=bearing(token("bob", ALICE)))).status_code == 404


class TestListing:
    async def listed(self, http: httpx.AsyncClient, headers: dict[str, str], **query: Any) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            answer = await http.get(OPS, params={"limit": 2} | query | cursor, headers=headers)
            page = answer.raise_for_status().json()
            found += [it["id"] for it in page["operations"]]
            if page["next_cursor"] is None:
                return sorted(found)
            cursor = {"cursor": page["next_cursor"]}

    @pytest.mark.parametrize(
        ("grants", "expected"),
        [
            ([], "alice-0 alice-1 alice-2"),
            ([{"actions": ["read"], "owners": ["bob"]}], "alice-0 alice-1 alice-2 bob-0 bob-1 bob-2"),
            ([{"actions": ["read"], "kinds": ["k1"]}], "alice-0 alice-1 alice-2 bob-1 carl-1"),
            ([{"actions": ["read"], "tags": ["t2"], "owners": ["carl"]}], "alice-0 alice-1 alice-2 carl-2"),
            ([{"actions": ["read"], "ids": ["bob-0", "none"]}], "alice-0 alice-1 alice-2 bob-0"),
            ([{"actions": ["read"], "prefixes": ["carl-"]}], "alice-0 alice-1 alice-2 carl-0 carl-1 carl-2"),
            ([{"actions": ["publish"]}], "alice-0 alice-1 alice-2"),
        ],
    )
    async def test_holds_what_may_be_read(
        self, http: httpx.AsyncClient, grants: list[dict[str, Any]], expected: str
    ) -> None:
        maker = bearing(token("maker", grants=[{"actions": ["create"]}]))
        for owner in ("alice", "bob", "carl"):
            for i in range(3):
                await create(http, f"{owner}-{i}", maker, owner=owner, kind=f"k{i}", tags=[f"t{i}"])
        reader = bearing(token("alice", "read", grants=grants))
        assert await self.listed(http, reader) == expected.split()
        of_kind = [id for id in expected.split() if id.endswith("-1")]
        assert await self.listed(http, reader, kind="k1") == of_kind

    async def test_a_cursor_tells_nothing_and_can_not_be_made_up(self, http: httpx.AsyncClient) -> None:
        maker = bearing(token("root", grants=[{"actions": ["admin"]}]))
        for i in range(3):
            await create(http, f"secret-{i}", maker, owner="alice")
        alice = bearing(token("alice", "read"))
        cursor = (await http.get(OPS, params={"limit": 1}, headers=alice)).json()["next_cursor"]
        open_one = (await http.get(OPS, params={"limit": 1}, headers=maker)).json()["next_cursor"]
        assert (await http.get(OPS, params={"cursor": cursor}, headers=alice)).status_code == 200
        for bad in (open_one, cursor[:-6] + "AAAAAA", "x"):
            assert (await http.get(OPS, params={"cursor": bad}, headers=alice)).status_code == 422


def test_a_flood_of_strangers_is_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "progress_server.observability.logs")
    clock = [7.0]
    rejected = RejectionLog(lambda: clock[0])
    for moment in (7.1, 8.0):
        clock[0] = moment
        for _ in range(1_000):
            rejected.record({"path": "/v1/operations"}, Unauthenticated("the request has no token"))
    assert len(caplog.messages) == 2 * LINES_A_SECOND + 1
    assert caplog.messages[LINES_A_SECOND] == f"{1_000 - LINES_A_SECOND} more calls were rejected within one second"
