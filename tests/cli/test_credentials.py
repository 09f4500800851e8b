"""`token`, `key` and `revoke`, with a server that checks their credentials."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import jwt
import pytest

from progress_broker.runtime.durations import seconds
from tests.cli.conftest import Shell, ready
from tests.servers import Process, wait_until

SECRET = "what this server and its tokens share, 32 bytes and more"


@pytest.fixture
def signing(shell: Shell) -> Shell:
    shell.env |= {"PROGRESS_AUTH": "jwt", "PROGRESS_JWT_KEY": SECRET, "PROGRESS_PORT": "0"}
    return shell


@pytest.fixture
def served(signing: Shell) -> Iterator[Process]:
    made = signing.run(
        "auth", "key", "importer", "--grants", '[{"actions": ["create", "publish"], "prefixes": ["import-"]}]'
    )
    key, _, lines = made.stdout.partition("\n")
    (signing.folder / "keys.toml").write_text(lines)
    (signing.folder / "key").write_text(key)
    with signing.process("serve", PROGRESS_API_KEYS=str(signing.folder / "keys.toml")) as server:
        ready(server)
        yield server


def call(url: str, proof: str, body: object = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Authorization": f"Bearer {proof}"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_token_is_taken_until_its_principal_is_revoked(signing: Shell, served: Process) -> None:
    url = f"{ready(served)}/v1/operations"
    alice, bob = (signing.says("auth", "token", "--sub", name).strip() for name in ("alice", "bob"))
    assert call(url, alice, {"id": "a"}) == 201
    assert (call(f"{url}/a", alice), call(f"{url}/a", bob), call(f"{url}/a", "x")) == (200, 404, 401)
    assert "alice" in signing.says("auth", "revoke", "--sub", "alice", "--for", "1h")
    wait_until(lambda: call(f"{url}/a", alice) == 401, "alice is out")
    assert "sub 'alice' is revoked until 20" in signing.says("auth", "list")
    [listed] = signing.lines("auth", "list")
    assert (listed["claim"], listed["value"]) == ("sub", "alice")
    signing.says("auth", "restore", "--sub", "alice")
    wait_until(lambda: call(f"{url}/a", alice) == 200, "alice is in again")
    assert signing.says("auth", "list") == ""
    assert "not revoked" in signing.fails(4, "auth", "restore", "--sub", "alice")
    jti = jwt.decode(bob, options={"verify_signature": False})["jti"]
    signing.says("auth", "revoke", "--jti", jti)
    wait_until(lambda: call(f"{url}/a", bob) == 401, "bob's token is out")
    assert call(f"{url}/a", signing.says("auth", "token", "--sub", "bob").strip()) == 404
    assert alice not in served.output()


def test_a_key_is_shown_once_and_its_line_is_what_the_server_takes(signing: Shell, served: Process) -> None:
    key, url = (signing.folder / "key").read_text(), f"{ready(served)}/v1/operations"
    assert key.startswith("pbk_")
    assert key not in (signing.folder / "keys.toml").read_text()
    assert call(url, key, {"id": "import-1", "owner": "alice"}) == 201
    assert call(url, key, {"id": "export-1"}) == 403
    assert call(f"{url}/import-1/events", key, {"type": "log", "data": {"message": "hello"}}) == 200
    assert call(f"{url}/import-1", key) == 404
    assert call(url, key[:-1] + "x", {"id": "import-2"}) == 401


def test_a_token_says_what_was_asked(signing: Shell) -> None:
    grants = '[{"actions": ["read"], "kinds": ["import"]}]'
    words = ("--sub", "alice", "--scope", "read", "--expires", "10m", "--grants", grants, "--jwt-audience", "us")
    told = jwt.decode(signing.says("auth", "token", *words).strip(), SECRET, ["HS256"], audience="us")
    assert (told["sub"], told["scope"], told["grants"]) == ("alice", "read", json.loads(grants))
    assert told["exp"] - told["iat"] == 600


def test_what_can_not_be_made_is_rejected(signing: Shell) -> None:
    assert "invalid duration 'soon'" in signing.fails(2, "auth", "token", "--sub", "a", "--expires", "soon")
    assert "not JSON" in signing.fails(2, "auth", "token", "--sub", "a", "--grants", "{")
    assert "actions" in signing.fails(2, "auth", "key", "a", "--grants", '[{"actions": ["fly"]}]')
    assert "control characters" in signing.fails(2, "auth", "key", "a\nb")
    assert "--sub" in signing.fails(2, "auth", "revoke")
    assert "--sub" in signing.fails(2, "auth", "restore", "--sub", "a", "--jti", "b")
    for call_of in ("revoke", "restore"):
        for nobody in ("", "a\nb", b"a\xff".decode("utf-8", "surrogateescape")):
            assert "it is empty" in signing.fails(2, "auth", call_of, "--sub", nobody)
    assert "366 days at most" in signing.fails(2, "auth", "revoke", "--sub", "a", "--for", "400d")
    del signing.env["PROGRESS_JWT_KEY"]
    assert "PROGRESS_JWT_KEY" in signing.fails(5, "auth", "token", "--sub", "a")


def test_a_server_without_a_key_does_not_start(signing: Shell) -> None:
    del signing.env["PROGRESS_JWT_KEY"]
    assert "PROGRESS_JWT_KEY" in signing.fails(5, "serve")


@pytest.mark.parametrize(
    ("text", "expected"), [("90", 90), ("45s", 45), ("30m", 1_800), ("1.5h", 5_400), ("7d", 604_800)]
)
def test_lengths_of_time(text: str, expected: float) -> None:
    assert seconds(text) == expected
