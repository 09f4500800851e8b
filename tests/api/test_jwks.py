"""Key sets: fetched once for many requests, again for an unknown key, and kept if their URL fails."""

import asyncio
import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from progress_broker.errors import SetupError, StorageUnavailable
from progress_server.auth.guard import Guard
from progress_server.auth.keys import COOLDOWN_S, MAX_BYTES, KeySet, read_key_set
from tests.api.proofs import AUDIENCE, token
from tests.api.test_authentication import admits
from tests.conftest import make_settings
from tests.servers import eventually, free_port

ONE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
TWO = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
WEAK = rsa.generate_private_key(public_exponent=65537, key_size=1024)


def jwk(key: Any, kid: str | None, **more: str) -> dict[str, Any]:
    algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    told: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return told | ({} if kid is None else {"kid": kid}) | more


class Issuer:
    """A server that publishes a key set."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.status = 200
        self.asked = 0
        self.paths: list[str] = []
        self.body: bytes | None = None
        """What is sent instead of the keys."""
        self.packed = False
        self.more, self.pause_s = b"", 0.0
        """What is sent after that again and again."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.paths.append(self.path)
                body = json.dumps({"keys": issuer.keys}).encode() if issuer.body is None else issuer.body
                self.send_response(issuer.status)
                self.send_header("Location", "/elsewhere")
                if issuer.packed:
                    self.send_header("Content-Encoding", "gzip")
                if not issuer.more:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):  # the client reads no further
                    self.wfile.write(body)
                    while issuer.more:
                        self.wfile.write(issuer.more)
                        time.sleep(issuer.pause_s)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    issuer.keys = [jwk(ONE, "one")]
    thread = threading.Thread(target=issuer.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield issuer
    issuer.more = b""
    issuer.server.shutdown()
    issuer.server.server_close()
    thread.join()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(issuer: Issuer, clock: Clock) -> KeySet:
    return KeySet(issuer.url, 300, clock)


async def test_many_who_come_at_once_cost_one_read(issuer: Issuer, keys: KeySet) -> None:
    found = await asyncio.gather(*(keys.key("one") for _ in range(100)))
    assert all(it is not None and it.algorithm == "RS256" for it in found)
    assert issuer.asked == 1


async def test_a_new_key_is_found_when_a_token_names_it(issuer: Issuer, keys: KeySet, clock: Clock) -> None:
    assert await keys.key("two") is None
    issuer.keys.append(jwk(TWO, "two"))
    assert await keys.key("two") is None  # invented key names must not cause repeated fetches
    assert issuer.asked == 1
    clock.now += COOLDOWN_S
    found = await keys.key("two")
    assert found is not None
    assert found.algorithm == "ES256"
    assert issuer.asked == 2


async def test_a_key_that_was_taken_away_counts_no_more(issuer: Issuer, keys: KeySet, clock: Clock) -> None:
    await keys.key("one")
    issuer.keys = [jwk(TWO, "two")]
    clock.now += 300
    await keys.key("one")  # this causes another fetch

    async def is_gone() -> bool:
        return await keys.key("one") is None

    await eventually(is_gone, "the old key is gone")
    assert issuer.asked == 2


@pytest.mark.parametrize("status", [500, 404, 302])
async def test_it_outlasts_its_address(issuer: Issuer, keys: KeySet, clock: Clock, status: int) -> None:
    await keys.key("one")
    issuer.status = status
    for _ in range(3):
        clock.now += 1_000
        assert await keys.key("one") is not None
    assert await keys.key("two") is None
    issuer.status, issuer.keys = 200, [jwk(TWO, "two")]
    clock.now += 1_000
    assert await keys.key("two") is not None


async def test_a_set_that_is_none_changes_nothing(issuer: Issuer, keys: KeySet, clock: Clock) -> None:
    await keys.key("one")
    issuer.keys = [{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "one"}]
    clock.now += 1_000
    assert await keys.key("two") is None
    found = await keys.key("one")
    assert found is not None
    assert found.algorithm == "RS256"


class TestAnAnswer:
    async def warned(self, keys: KeySet, caplog: pytest.LogCaptureFixture) -> str:
        with pytest.raises(StorageUnavailable):
            await keys.key("one")
        [line] = [it.message for it in caplog.records if it.levelname == "WARNING"]
        return line

    async def test_that_redirects_is_not_followed(
        self, issuer: Issuer, keys: KeySet, caplog: pytest.LogCaptureFixture
    ) -> None:
        issuer.status = 302
        assert "302; redirects are not followed: set PROGRESS_JWT_JWKS to the final address" in await self.warned(
            keys, caplog
        )
        assert issuer.paths == ["/keys"]

    async def test_without_end_is_read_up_to_a_bound(
        self, issuer: Issuer, keys: KeySet, caplog: pytest.LogCaptureFixture
    ) -> None:
        issuer.more = b" " * 65_536
        assert f"over {MAX_BYTES} bytes" in await self.warned(keys, caplog)

    async def test_that_is_packed_is_not_unpacked(
        self, issuer: Issuer, keys: KeySet, caplog: pytest.LogCaptureFixture
    ) -> None:
        issuer.body, issuer.packed = gzip.compress(b" " * 100 * MAX_BYTES), True
        assert "can't read the key set" in await self.warned(keys, caplog)

    async def test_that_drips_is_given_up(
        self, issuer: Issuer, keys: KeySet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("progress_server.auth.keys.TIMEOUT_S", 0.3)
        issuer.more, issuer.pause_s = b" ", 0.02
        assert "did not answer within 0.3 s" in await self.warned(keys, caplog)


async def test_an_address_where_nobody_listens_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StorageUnavailable):
        await KeySet(f"http://127.0.0.1:{free_port()}/keys", 300).key("one")
    assert "the server can't be reached" in caplog.text


async def test_keys_of_this_machine_come_by_no_proxy(
    issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await KeySet(issuer.url, 300, clock).key("one") is not None


@pytest.mark.parametrize("address", ["https:///keys", "https://host:port/keys", "https://[::1/keys"])
def test_an_address_that_can_not_be_right_is_told(address: str) -> None:
    with pytest.raises(SetupError, match="PROGRESS_JWT_JWKS"):
        KeySet(address, 300)


async def test_while_there_has_been_none_it_says_come_back(issuer: Issuer, keys: KeySet, clock: Clock) -> None:
    issuer.status = 500
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await keys.key("one")
    assert issuer.asked == 1
    issuer.status = 200
    clock.now += COOLDOWN_S
    assert await keys.key("one") is not None


def test_only_public_keys_for_signatures_are_taken_from_a_set() -> None:
    private = json.loads(RSAAlgorithm.to_jwk(ONE))
    told = [
        jwk(ONE, "good"),
        jwk(TWO, "ec", use="sig", alg="ES256"),
        jwk(ONE, "for encryption", use="enc"),
        jwk(ONE, "of another algorithm", alg="RS512"),
        jwk(P384, "of another curve"),
        jwk(WEAK, "weak"),
        private | {"kid": "private"},
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "secret", "alg": "HS256"},
    ]
    assert set(read_key_set(json.dumps({"keys": told}))) == {"good", "ec"}


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"keys": []}', '{"keys": 3}', '{"keys": [3]}', b"\xff"])
def test_what_is_no_key_set_is_told(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"key set|decode"):
        read_key_set(text)


async def test_tokens_are_checked_with_the_key_they_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(ONE, "one"), jwk(TWO, "two")]}))
    guard = Guard(make_settings(auth="jwt", jwt_jwks=str(path), jwt_audience=AUDIENCE))
    assert await admits(guard, token("a", key=ONE, algorithm="RS256", headers={"kid": "one"})) == "a"
    assert await admits(guard, token("b", key=TWO, algorithm="ES256", headers={"kid": "two"})) == "b"
    assert await admits(guard, token("a", key=ONE, algorithm="RS256", headers={"kid": "two"})) is None
    assert await admits(guard, token("a", key=ONE, algorithm="RS256")) is None  # with two keys it is ambiguous
    assert await admits(guard, token("a", headers={"kid": "one"})) is None
