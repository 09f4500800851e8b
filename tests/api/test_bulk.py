"""Acting on many operations through a server: as an operation of its own, on what the caller may act on."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.settings import Settings
from tests.api import proofs
from tests.api.proofs import ALICE, admin, bearing, token
from tests.api.test_operations import OPS, create, finish, problem, publish
from tests.servers import eventually


async def ended(http: httpx.AsyncClient, answer: httpx.Response, **how: Any) -> dict[str, Any]:
    """Return the job of an answer, once it has ended."""
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"{OPS}/{job['id']}"
    found: dict[str, Any] = {}

    async def done() -> bool:
        found.update((await http.get(f"{OPS}/{job['id']}", **how)).json())
        return bool(found["done"])

    await eventually(done, "the job ends")
    return found


async def test_what_a_query_chooses_is_acted_on(http: httpx.AsyncClient) -> None:
    for id in ("a", "b", "c"):
        await create(http, id=id, kind="k", tags=["eu"])
        await publish(http, id, "progress", {"percent": 1})
    await create(http, id="other")
    look = await http.post(f"{OPS}:cancel", json={"query": {"kind": "k", "tag": ["eu"]}, "dry_run": True})
    assert (look.status_code, look.json()["number"], set(look.json()["samples"])) == (200, 3, {"a", "b", "c"})
    job = await ended(http, await http.post(f"{OPS}:cancel", json={"query": {"kind": "k"}, "reason": "enough"}))
    assert (job["kind"], job["result"]) == ("bulk-cancel", {"changed": 3, "skipped": 0, "failed": 0})
    assert (await http.get(f"{OPS}/a")).json()["cancel"]["reason"] == "enough"
    job = await ended(http, await http.post(f"{OPS}:signal", json={"ids": ["a", "b"], "type": "pause"}))
    assert job["result"]["changed"] == 2
    for id in ("a", "b"):
        await finish(http, id, "cancelled")
    job = await ended(http, await http.post(f"{OPS}:purge", json={"query": {"kind": "k", "roots": True}}))
    assert job["result"]["changed"] == 2
    assert [(await http.get(f"{OPS}/{id}")).status_code for id in ("a", "b", "c", "other")] == [410, 410, 200, 200]
    nothing = await http.post(f"{OPS}:purge", json={"query": {"kind": "k"}})
    assert (nothing.status_code, nothing.json()) == (200, {"number": 0, "samples": []})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "ids"),
        ({"ids": ["a"], "query": {"kind": "k"}}, "ids"),
        ({"query": {"sort": "created"}}, "sort"),
        ({"query": {"status": "failed"}}, "status"),
        ({"query": {"since": "yesterday"}}, "since"),
        ({"query": {}}, "query"),
        ({"ids": ["/"]}, "ids.0"),
        ({"query": {"roots": True}, "max": 1}, "max"),
    ],
)
async def test_what_is_wrong_changes_nothing(http: httpx.AsyncClient, body: dict[str, Any], field: str) -> None:
    for id in ("a", "b"):
        await create(http, id=id, kind="k")
    assert problem(await http.post(f"{OPS}:cancel", json=body), 422, "invalid")["field"] == field
    page = (await http.get(OPS)).json()["operations"]
    assert [(it["id"], it["status"]) for it in page] == [("b", "pending"), ("a", "pending")]


async def test_how_long_one_is_kept(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    await finish(http, "a")
    assert (await http.patch(f"{OPS}/a", json={"pinned": True})).json()["expires_at"] > "2030"
    again = (await http.patch(f"{OPS}/a", json={"retention_s": None})).json()
    assert again["expires_at"] < "2030"
    for body in ({}, {"pinned": True, "retention_s": 1.0}, {"retention_s": 0}):
        problem(await http.patch(f"{OPS}/a", json=body), 422, "invalid")
    problem(await http.patch(f"{OPS}/none", json={"pinned": True}), 404, "not-found")


async def test_how_long_all_are_kept(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    path = "/v1/admin/retention"
    before = (await http.get(path)).json()
    wrong = ({"ended_s": 0}, {"ended_s": "1d"}, {"idle_s": -1.0}, {"idle_s": 1e12}, {"retention_s": 60.0}, [])
    for body in wrong:
        problem(await http.put(path, json=body), 422, "invalid")
    assert (await http.get(path)).json() == before
    changed = (await http.put(path, json={"idle_s": 3600.0})).json()
    assert changed == before | {"idle_s": 3600.0, "looked": 1, "changed": 1}
    assert (await http.put(path, json={})).json() == changed | {"changed": 0}


class TestACallerThatMayNotActOnAll:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return proofs.secured(tmp_path)

    async def test_acts_on_its_own_and_watches_it(self, http: httpx.AsyncClient) -> None:
        alice, bob = bearing(token("alice", ALICE)), bearing(token("bob", ALICE))
        for name, proof in (("alice", alice), ("bob", bob)):
            for number in range(2):
                await http.post(OPS, json={"id": f"{name}-{number}", "kind": "k"}, headers=proof)
        every = {"query": {"kind": "k"}}
        look = await http.post(f"{OPS}:cancel", json=every | {"dry_run": True}, headers=alice)
        assert (look.json()["number"], sorted(look.json()["samples"])) == (2, ["alice-0", "alice-1"])
        job = await ended(http, await http.post(f"{OPS}:cancel", json=every, headers=alice), headers=alice)
        assert (job["owner"], job["result"]["changed"]) == ("alice", 2)
        statuses = {it["id"]: it["status"] for it in (await http.get(OPS, headers=admin())).json()["operations"]}
        assert {statuses[f"bob-{number}"] for number in range(2)} == {"pending"}
        purged = await http.post(f"{OPS}:purge", json=every, headers=alice)
        assert (purged.status_code, purged.json()["number"]) == (200, 0)
        entries = (await http.get("/v1/audit", params={"action": "cancel"}, headers=admin())).json()["entries"]
        assert {entry["who"] for entry in entries} == {"alice"}
        changed = [entry["target"] for entry in entries if entry.get("detail") == job["id"]]
        assert sorted(",".join(changed).split(",")) == ["alice-0", "alice-1"]
        assert "kind=k" in {entry["target"] for entry in entries}
