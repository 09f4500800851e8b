"""Operations that are moved over HTTP."""

import httpx
import orjson
import pytest

from progress_broker.operations.store import Store
from progress_broker.queries.filters import Filters
from progress_server.routes.operators import exports
from tests.keyspace import keys_of_all
from tests.transfer.exports import export, forget_all, parts_of
from tests.transfer.fleet import ENDED, UNFINISHED, make_fleet

LINES = {"Content-Type": "application/x-ndjson"}


def results(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {line["id"]: line["result"] for line in map(orjson.loads, answer.content.splitlines())}


def ids_of(text: bytes) -> set[str]:
    return {part.id for part in parts_of(text) if type(part).__name__ == "OperationEnd"}


async def test_an_export_has_what_the_query_chooses(http: httpx.AsyncClient, store: Store) -> None:
    await make_fleet(store)
    answer = await http.get("/v1/export", params={"kind": "import", "status": "succeeded,failed"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    found = await export(store, Filters(kinds=("import",)))
    assert sorted(answer.content.splitlines()[1:]) == sorted(found.splitlines()[1:])
    assert parts_of(answer.content)[0].query == {"kind": ["import"], "status": ["failed", "succeeded"]}
    one = await http.get("/v1/operations/short/export")
    assert ids_of(one.content) == {"short"}
    assert (await http.get("/v1/operations/nobody/export")).status_code == 404
    assert (await http.get("/v1/export?kinds=import")).json()["field"] == "kinds"
    assert (await http.get("/v1/export?status=lost")).json()["field"] == "status"
    assert (await http.head("/v1/export")).status_code == 200


async def test_an_import_stores_it(http: httpx.AsyncClient, store: Store) -> None:
    await make_fleet(store)
    text = (await http.get("/v1/export")).content
    await forget_all(store)
    dry = await http.post("/v1/import", params={"dry_run": "true"}, content=text, headers=LINES)
    assert set(results(dry).values()) == {"stored", "refused"}
    assert not [key for key in await keys_of_all(store.connections) if b":op:" in key]
    found = results(await http.post("/v1/import", content=text, headers=LINES))
    assert {found[id] for id in ENDED} == {"stored"}
    assert {found[id] for id in UNFINISHED} == {"refused"}
    again = results(await http.post("/v1/import", params={"unfinished": "keep"}, content=text, headers=LINES))
    assert {again[id] for id in ENDED} == {"skipped"}
    assert {again[id] for id in UNFINISHED} == {"stored"}
    back = (await http.get("/v1/export")).content
    assert sorted(back.splitlines()[1:]) == sorted(text.splitlines()[1:])


async def test_a_damaged_import_says_how_far_it_came(http: httpx.AsyncClient, store: Store) -> None:
    await make_fleet(store)
    text = await export(store, Filters(ids=("short", "failed", "long")))
    await forget_all(store)
    answer = await http.post("/v1/import", content=text[:-50], headers=LINES)
    assert (answer.status_code, answer.json()["type"], answer.json()["accepted"]) == (422, "invalid", 3)
    assert (await http.post("/v1/import", content=b"", headers=LINES)).status_code == 422
    part = await http.post("/v1/import", params={"partial": "true"}, content=text[:-50], headers=LINES)
    assert set(results(part).values()) == {"skipped"}


async def test_while_redis_is_waited_for_lines_are_sent(
    http: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "WAIT_S", 0.0)
    await make_fleet(store)
    text = (await http.get("/v1/export")).content
    assert b'{"k":"wait"}\n' in text
    assert ids_of(text) == {*ENDED, *UNFINISHED}
