"""Every request that changes something is in the audit, whether it was done or rejected."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from progress_broker.access.audit import Audit, AuditEntry, AuditFilter, AuditRecord, read_audit
from progress_broker.operations.store import Store
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_server.middleware.audit import ACTIONS, NOT_AUDITED, READING
from tests.api.proofs import ALICE, admin, bearing, create, secured, token
from tests.api.test_permissions import _routes, ask
from tests.servers import eventually


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path)


async def entries(store: Store, **wanted: Any) -> list[AuditRecord]:
    return (await read_audit(store, AuditFilter(**wanted), limit=1_000, cursor=None)).entries


def test_each_call_that_is_no_get_is_in_the_audit_or_says_why_not(app: Any) -> None:
    calls = {f"{method} {path}" for method, path in _routes(app.routes) if method not in {*READING, "WS"}}
    assert calls == ACTIONS.keys() | NOT_AUDITED.keys()
    assert not ACTIONS.keys() & NOT_AUDITED.keys()


@pytest.mark.parametrize("call", ACTIONS)
async def test_what_is_done_and_what_is_rejected_has_an_entry(http: httpx.AsyncClient, store: Store, call: str) -> None:
    await create(http, "op", bearing(token("alice", ALICE)))
    vera = bearing(token("vera", grants=[{"actions": ["read"]}]))
    answers = [await ask(http, call, "op", headers=headers) for headers in (vera, admin())]
    found: list[AuditRecord] = []

    async def there() -> bool:
        found[:] = await entries(store, action=ACTIONS[call])
        return {it.who for it in found} >= {"vera", "root"}

    await eventually(there, "both have an entry")
    for who, answer in zip(("vera", "root"), answers, strict=True):
        [entry] = [it for it in found if it.who == who and it.request == answer.headers["x-request-id"]]
        assert (entry.via, entry.address) == ("http", "127.0.0.1")
        assert entry.result == ("ok" if answer.is_success else answer.json()["type"])
        if "{id}" in call:
            assert entry.target == "op"


async def test_a_cancel_over_a_socket_has_an_entry(http: httpx.AsyncClient, base_url: str, store: Store) -> None:
    alice = bearing(token("alice", ALICE))
    await create(http, "a", alice)
    async with connect(f"{base_url.replace('http', 'ws')}/v1/ws", additional_headers=alice) as socket:
        for id in ("a", "nope"):
            await socket.send(json.dumps({"type": "cancel", "operation": id, "reason": "enough"}))
        told: list[str] = []
        while len(told) < 2:
            told += [event for event in [json.loads(await socket.recv())["event"]] if event in ("cancelled", "problem")]
    found = await entries(store, action="cancel")
    assert [(it.who, it.via, it.target, it.result) for it in reversed(found)] == [
        ("alice", "ws", "a", "ok"),
        ("alice", "ws", "nope", "not-found"),
    ]
    assert {(it.address, it.detail) for it in found} == {("127.0.0.1", "enough")}


async def test_it_is_read_page_by_page_and_by_what_it_says(http: httpx.AsyncClient, store: Store) -> None:
    audit = Audit()
    async with audit.stored_in(store):
        for number in range(25):
            await audit.record(AuditEntry("ann" if number % 2 else "bob", "http", "cancel", f"op-{number}"))
            await audit.record(AuditEntry("ann", "http", "create", f"op-{number}"))
    auditor = bearing(token("ops", grants=[{"actions": ["audit"]}]))
    read: list[tuple[str, str]] = []
    query: dict[str, Any] = {"limit": 7}
    while True:
        answer = await http.get("/v1/audit", params=query, headers=auditor)
        assert answer.status_code == 200, answer.text
        read += [(entry["action"], entry["target"]) for entry in answer.json()["entries"]]
        if answer.json()["next_cursor"] is None:
            break
        query["cursor"] = answer.json()["next_cursor"]
    assert sorted(read) == sorted((action, f"op-{n}") for action in ("cancel", "create") for n in range(25))
    assert [target for action, target in read if action == "cancel"] == [f"op-{n}" for n in reversed(range(25))]
    assert len(await entries(store, who="bob")) == 13
    assert len(await entries(store, target="op-3")) == 2
    assert await entries(store, since_ms=4_000_000_000_000) == []
    for bad in ({"cursor": "x"}, {"since": "yesterday"}, {"cursor": "1-1~"}):
        assert (await http.get("/v1/audit", params=bad, headers=auditor)).status_code == 422


async def test_an_action_does_not_fail_by_its_entry(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally()
    await store.connections.commands.set(f"{store.keyspace.prefix}:audit", "of another program", px=60_000)
    audit = Audit(tally)
    async with audit.stored_in(store):
        async with asyncio.timeout(30):
            await audit.record(AuditEntry("ann", "http", "cancel", "a"))
    assert tally.audit_lost == 1
    assert any("did not store 1 entries" in record.message for record in caplog.records)
    await store.connections.commands.delete(f"{store.keyspace.prefix}:audit")
