"""Limits of one principal: they replace those of the settings for it, at all replicas, and for nobody else."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.settings import Settings
from tests.api.conftest import Connect
from tests.api.proofs import ALICE, admin, bearing, create, secured, token
from tests.api.raw import request
from tests.servers import eventually

LIMITS = "/v1/admin/limits"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, revocation_check_s=0.05, requests_per_s=1_000, sent_bytes_per_s=0)


async def policy_of(http: httpx.AsyncClient, headers: dict[str, str]) -> str | None:
    answer = await http.get("/v1/operations", headers=headers)
    policy: str | None = answer.headers.get("ratelimit-policy")
    return policy


async def limited(http: httpx.AsyncClient, name: str, **limits: Any) -> dict[str, Any]:
    answer = await http.put(f"{LIMITS}/{name}", json=limits, headers=admin())
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_one_principal_is_limited_and_no_other(http: httpx.AsyncClient, connect: Connect) -> None:
    alice, bob = (bearing(token(name, ALICE)) for name in ("alice", "bob"))
    usual = '"requests";q=2000;w=2'
    assert await policy_of(http, alice) == await policy_of(http, bob) == usual
    await create(http, "a", alice)
    set = await limited(http, "alice", requests_per_s=0.5, sent_bytes_per_s=1_000, streams=1)
    assert set | {"at": ""} == {
        "principal": "alice",
        "requests_per_s": 0.5,
        "sent_bytes_per_s": 1_000,
        "streams": 1,
        "by": "root",
        "at": "",
    }

    async def changed() -> bool:
        return await policy_of(http, alice) != usual

    await eventually(changed, "the limits are applied")
    assert await policy_of(http, bob) == usual
    assert (await policy_of(http, alice) or "").startswith('"requests";q=1;w=2, "sent-bytes"')
    assert (await http.get("/v1/operations", headers=alice)).status_code == 429
    assert (await http.get(LIMITS, headers=admin())).json() == {"limits": [set]}

    await limited(http, "alice", requests_per_s=0, streams=1)  # no limit of requests

    async def unlimited() -> bool:
        return await policy_of(http, alice) is None

    await eventually(unlimited, "the limits are replaced")
    stream = request("/v1/operations/a/stream", f"Authorization: {alice['Authorization']}")
    first, second = await connect(), await connect()
    first.send(stream)
    await first.opened()
    second.send(stream)
    status, headers = await second.head()
    assert (status, headers["ratelimit-policy"]) == (429, '"streams";q=1;qu="concurrent-requests"')

    assert (await http.delete(f"{LIMITS}/alice", headers=admin())).status_code == 204

    async def usual_again() -> bool:
        return await policy_of(http, alice) == usual

    await eventually(usual_again, "the limits of the settings apply again")
    assert (await http.delete(f"{LIMITS}/alice", headers=admin())).status_code == 404


async def test_any_name_and_no_useless_limit(http: httpx.AsyncClient) -> None:
    await limited(http, "team%2Fci%20é", streams=3)
    [found] = (await http.get(LIMITS, headers=admin())).json()["limits"]
    assert found["principal"] == "team/ci é"
    assert (await http.delete(f"{LIMITS}/team%2Fci%20é", headers=admin())).status_code == 204
    for bad in ({}, {"streams": -1}, {"streams": 1.5}, {"requests_per_s": "many"}, {"bytes": 1}):
        answer = await http.put(f"{LIMITS}/alice", json=bad, headers=admin())
        assert (answer.status_code, answer.json()["type"]) == (422, "invalid")
