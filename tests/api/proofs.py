"""Credentials of callers, for tests."""

import math
import time
from pathlib import Path
from typing import Any

import httpx
import jwt

from progress_broker.settings import Settings
from tests.conftest import make_settings

SECRET = "a secret that is long enough for HS256, and for tests"
AUDIENCE = "progress"
COOKIE = "session"
KEY = "pbk_publisher"


def secured(folder: Path, **changes: Any) -> Settings:
    """Return settings with authentication. The API key `KEY` may only publish."""
    from progress_server.auth.api_keys import hash_key

    keys = folder / "keys.toml"
    keys.write_text(f'[[keys]]\nname = "publisher"\nsha256 = "{hash_key(KEY)}"\ngrants = [{{actions = ["publish"]}}]\n')
    usual = {"auth": "jwt", "jwt_key": SECRET, "jwt_audience": AUDIENCE, "jwt_cookie": COOKIE, "api_keys": keys}
    return make_settings(**(usual | {"jwt_leeway_s": 0} | changes))


def token(sub: str, scope: str = "", *, key: Any = SECRET, algorithm: str | None = "HS256", **claims: Any) -> str:
    told = {"sub": sub, "scope": scope, "aud": AUDIENCE, "exp": time.time() + 60} | claims
    headers = claims.pop("headers", None)
    told.pop("headers", None)
    return jwt.encode({name: it for name, it in told.items() if it is not None}, key, algorithm, headers)


def soon() -> int:
    """Return an expiry that is late enough for a request on a busy machine. Tokens have whole seconds."""
    return math.ceil(time.time()) + 2


def bearing(proof: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {proof}"}


ALICE = "read publish cancel create"


def admin() -> dict[str, str]:
    return bearing(token("root", grants=[{"actions": ["admin"]}]))


async def create(http: httpx.AsyncClient, id: str, headers: dict[str, str], **body: object) -> dict[str, Any]:
    answer = await http.post("/v1/operations", json={"id": id} | body, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


_OF_ITS_OWN = {"date", "x-request-id", "ratelimit", "ratelimit-policy"}


def told(answer: httpx.Response) -> tuple[int, dict[str, str]]:
    """Return the status and headers of a response, without those that always differ: time, id, and remaining calls."""
    return answer.status_code, {name: it for name, it in answer.headers.items() if name not in _OF_ITS_OWN}
