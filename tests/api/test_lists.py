"""Lists and counts over HTTP: names, orders, brief ones, tags, compression, and what a caller may not read."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from progress_broker.queries.fields import FIELDS
from progress_broker.settings import Settings
from tests.api import proofs
from tests.api.proofs import ALICE, bearing, token
from tests.api.test_operations import OPS, create, finish, problem, publish


async def ids(http: httpx.AsyncClient, query: str, **headers: str) -> list[str]:
    answer = await http.get(f"{OPS}?{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return [operation["id"] for operation in answer.json()["operations"]]


@pytest.fixture
async def operations(http: httpx.AsyncClient) -> None:
    for id, kind in (("import-1", "import"), ("import-2", "import"), ("export-1", "export")):
        await create(http, id=id, kind=kind, title=f"The {id}", owner="alice")
    await create(http, id="part", parent="import-1")
    error = {"type": "timeout", "message": "The bank did not answer"}
    await publish(http, "import-2", "end", {"status": "failed", "error": error})
    await publish(http, "import-1", "progress", {"current": 1, "total": 4, "unit": "rows", "message": "m" * 300})


@pytest.mark.usefixtures("operations")
async def test_what_names_choose(http: httpx.AsyncClient) -> None:
    for query, found in {
        "status=failed,running": {"import-2", "import-1"},
        "status=failed&status=running": {"import-2", "import-1"},
        "kind=export&kind=import&roots=true": {"import-1", "import-2", "export-1"},
        "q=EXPORT": {"export-1"},
        "id_prefix=import-": {"import-1", "import-2"},
        "id=part&id=export-1": {"part", "export-1"},
        "parent=import-1": {"part"},
        "error=bank": {"import-2"},
        "error=timeout": {"import-2"},
        "ended_since=1h": {"import-2"},
        "created_since=1h&until=2100-01-01T00:00:00Z": {"import-1", "import-2", "export-1", "part"},
        "idle=1h": set(),
        "worker=w": set(),
        "since=1796047500000000": set(),
    }.items():
        assert set(await ids(http, query)) == found, query
    for field in FIELDS.values():
        assert (await http.get(OPS, params={field.name: field.example})).status_code == 200
    for query, wrong in {
        "status=lost": "status",
        "since=yesterday": "since",
        "since=1h&until=2h": "since",
        "roots=true&parent=a": "roots",
        "idle=1h&status=failed": "idle",
        "sort=ended&status=running": "sort",
        "id=/": "id",
    }.items():
        assert problem(await http.get(f"{OPS}?{query}"), 422, "invalid")["field"] == wrong
    assert (await http.get(f"{OPS}?sort=title")).status_code == 422


@pytest.mark.usefixtures("operations")
async def test_orders_and_cursors(http: httpx.AsyncClient) -> None:
    assert await ids(http, "sort=created") == ["part", "export-1", "import-2", "import-1"]
    assert (await ids(http, "sort=changed"))[0] == "import-1"
    assert await ids(http, "sort=ended") == ["import-2"]
    cursor = (await http.get(f"{OPS}?sort=created&limit=2")).json()["next_cursor"]
    assert await ids(http, f"sort=created&limit=2&cursor={cursor}") == ["import-2", "import-1"]
    assert problem(await http.get(f"{OPS}?cursor={cursor}"), 422, "invalid")["field"] == "cursor"


@pytest.mark.usefixtures("operations")
async def test_a_brief_list_has_what_a_row_shows(http: httpx.AsyncClient) -> None:
    [failed, running] = (await http.get(f"{OPS}?fields=brief&id=import-1&id=import-2&sort=created")).json()[
        "operations"
    ]
    assert (failed["error"], failed["done"]) == ("timeout", True)
    shown = {name: running[name] for name in ("percent", "current", "total", "unit", "message", "status")}
    assert shown == {
        "percent": 25.0,
        "current": 1,
        "total": 4,
        "unit": "rows",
        "message": "m" * 200,
        "status": "running",
    }
    assert "progress" not in running


@pytest.mark.usefixtures("operations")
async def test_a_list_that_did_not_change_is_not_sent_again(http: httpx.AsyncClient) -> None:
    for path in (OPS, f"{OPS}/counts"):
        tag = (await http.get(path)).headers["etag"]
        same = await http.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await finish(http, "part")
    for path in (OPS, f"{OPS}/counts"):
        assert (await http.get(path, headers={"If-None-Match": tag})).status_code == 200


async def test_a_long_list_is_compressed_unless_a_cookie_came_along(http: httpx.AsyncClient) -> None:
    for i in range(20):
        await create(http, id=f"o{i}")
    for path, compressed in ((OPS, True), (f"{OPS}/counts", False), (f"{OPS}/o1", False)):
        answer = await http.get(path, headers={"Accept-Encoding": "gzip"})
        assert (answer.headers.get("content-encoding") == "gzip") is compressed, path
    assert len((await http.get(OPS, headers={"Accept-Encoding": "gzip"})).json()["operations"]) == 20
    plain = await http.get(OPS, headers={"Accept-Encoding": "gzip", "Cookie": "a=b"})
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in (await http.get(OPS, headers={"Accept-Encoding": "identity"})).headers


@pytest.mark.usefixtures("operations")
async def test_counts(http: httpx.AsyncClient) -> None:
    async def counted(query: str = "") -> Any:
        return (await http.get(f"{OPS}/counts?{query}")).json()

    every = {"counts": {"pending": 2, "running": 1, "failed": 1}, "total": 4, "approximate": False}
    assert await counted() == every
    assert (await counted("status=failed,running"))["counts"] == {"running": 1, "failed": 1}
    assert (await counted("kind=import"))["total"] == 2
    assert await counted("q=import") == {"counts": {"running": 1, "failed": 1}, "total": 2, "approximate": False}
    assert (await counted("error=bank"))["approximate"] is True
    assert (await counted("kind=none"))["total"] == 0
    problem(await http.get(f"{OPS}/counts?limit=1"), 422, "invalid")
    await create(http, id="counts")
    assert await ids(http, "id=counts") == ["counts"]


class TestACallerThatMayNotReadAll:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return proofs.secured(tmp_path)

    async def test_is_told_of_nothing_else(self, http: httpx.AsyncClient) -> None:
        alice, bob = bearing(token("alice", ALICE)), bearing(token("bob", ALICE))
        for i in range(6):
            for name, proof in (("alice", alice), ("bob", bob)):
                answer = await http.post(OPS, json={"id": f"{name}-{i}", "kind": "k"}, headers=proof)
                assert answer.status_code == 201
        for query in ("", "kind=k", "status=pending", "q=bob", "id=bob-1&id=alice-1", "sort=created"):
            found = (await http.get(f"{OPS}?{query}", headers=alice)).json()["operations"]
            assert {operation["owner"] for operation in found} <= {"alice"}, query
            if "sort" not in query:
                counts = (await http.get(f"{OPS}/counts?{query}", headers=alice)).json()
                assert (counts["total"], counts["approximate"]) == (len(found), False), query
        first = await http.get(f"{OPS}?limit=2", headers=alice)
        again = await http.get(f"{OPS}?limit=2", headers=alice | {"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304, "although a cursor is encrypted anew each time"
        assert "alice" not in first.json()["next_cursor"]
