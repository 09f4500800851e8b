"""Valid and invalid credentials, in every place of a request: none of them appears in the log of a real server."""

import json
import time
from contextlib import suppress
from pathlib import Path

import httpx
import jwt
import pytest
import redis as redislib
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from progress_server.auth.api_keys import hash_key
from tests.e2e.harness import OPS
from tests.servers import DEADLINE_S, ApiReplica, RealRedis

JWT_KEY = "jwt-key-s3cret-that-is-long-enough-for-HS256"
TICKET_SECRET = "ticket-s3cret-that-is-long-enough-as-well"
API_KEY = "pbk_s3cret-of-a-worker"
PASSWORD = "redis-s3cret"
SAME = {"Sec-Fetch-Site": "same-origin"}


def parts(proof: str) -> list[str]:
    """Return the secret part of credentials: for a token its signature, because its claims are only names."""
    return [part for part in proof.split(".")[1:] if part] or [proof]


def wrong(token: str) -> list[str]:
    """Return tokens that are rejected, each for a different reason."""
    head, claims, signature = token.split(".")
    usual = jwt.decode(token, options={"verify_signature": False})
    changed = [usual | {"exp": 1}, usual | {"aud": "others"}, usual | {"sub": ""}, usual | {"nbf": time.time() + 999}]
    made = [jwt.encode(it, JWT_KEY, "HS256") for it in changed]
    none = jwt.encode(usual, None, "none")
    return [*made, none, f"{head}.{claims}.{signature[::-1]}", f"{claims}.{claims}.{signature}", f"x{token}"]


@pytest.mark.parametrize("form", ["console", "json"])
def test_the_log_has_no_proof(tmp_path: Path, form: str) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "w"\nsha256 = "{hash_key(API_KEY)}"\ngrants = [{{actions = ["read"]}}]\n')
    settings = {"auth": "jwt", "jwt_key": JWT_KEY, "jwt_audience": "us", "api_keys": keys, "requests_per_s": 0}
    settings |= {"ticket_secret": TICKET_SECRET, "log_level": "debug", "log_format": form, "drain_s": 0.5}
    settings |= {"stream_max_age_s": 0.2, "revocation_check_s": 0.1}
    claims = {"sub": "alice", "aud": "us", "exp": time.time() + 600, "jti": "t-1", "grants": [{"actions": ["admin"]}]}
    token = jwt.encode(claims, JWT_KEY, "HS256")
    secrets = {JWT_KEY, TICKET_SECRET, API_KEY, PASSWORD}
    with RealRedis(tmp_path / "redis") as redis:
        redis_url = f"unix://:{PASSWORD}@{redis.socket}"
        with redislib.Redis.from_url(redis.url) as client:
            client.config_set("requirepass", PASSWORD)
        with ApiReplica(redis_url, tmp_path / "log", **settings) as replica:
            with httpx.Client(base_url=replica.url, timeout=60) as http:
                bearing = {"Authorization": f"Bearer {token}"}
                assert http.post(OPS, json={"id": "a"}, headers=bearing).status_code == 201
                tickets = [
                    http.post(path, json=body, headers=bearing).json()["ticket"]
                    for path, body in ((f"{OPS}/a/tickets", {}), ("/v1/tickets", {"operations": ["a"]}))
                ]
                proofs = [token, *wrong(token), *tickets, *(f"{it}x" for it in tickets), API_KEY, f"{API_KEY}x"]
                statuses = {present(http, replica.url, proof) for proof in proofs}
                for body in ("{", json.dumps({"claim": "jti", "value": "t-1"})):
                    http.post("/v1/revocations", content=body, headers=bearing)
                http.post("/v1/session", headers=bearing | SAME)
            assert replica.stop() == 0
            log = replica.output()
    assert {True, False} <= statuses, "some were let in, and some were not"
    assert f"{OPS}/a/stream" in log, "requests are logged"
    assert "rejected a call of" in log, "and why they were rejected"
    secrets |= {part for proof in proofs for part in parts(proof)}
    assert not [line for line in log.splitlines() if any(secret in line for secret in secrets)][:3]


def present(http: httpx.Client, url: str, proof: str) -> bool:
    """Send credentials in each place of a request. Return whether they were accepted in any."""
    taken = False
    shown = [({"Authorization": f"{kind}{proof}"}, {}) for kind in ("Bearer ", "bearer ", "Basic ", "")]
    shown += [({"Cookie": f"progress_token={proof}"} | SAME, {})]
    shown += [({}, {name: proof}) for name in ("ticket", "token", "access_token")]
    for headers, query in shown:
        for method, path in (
            ("GET", f"{OPS}/a"),
            ("GET", f"{OPS}/a/stream"),
            ("GET", f"{OPS}/a/events"),
            ("GET", "/v1/stream?operation=a"),
            ("POST", "/v1/session"),
            ("GET", "/metrics"),
        ):
            params = query | ({"operation": "a"} if "?" in path else {})
            answer = http.request(method, path.partition("?")[0], headers=headers, params=params)
            taken |= answer.is_success
        asked = f"{url.replace('http', 'ws')}/v1/ws?{'&'.join(f'{name}={it}' for name, it in query.items())}"
        with suppress(WebSocketException), connect(asked, additional_headers=headers, close_timeout=1) as socket:
            socket.send(json.dumps({"type": proof}))
            while "problem" not in str(socket.recv(timeout=DEADLINE_S)):
                pass
    return taken
