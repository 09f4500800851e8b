"""The table in docs/explanation/security.md: it lists all calls, and each entry is true."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import ExportHead
from progress_server.http.paths import OPEN_PATHS
from tests.api.proofs import ALICE, COOKIE, KEY, admin, bearing, create, secured, token
from tests.api.proofs import told as seen

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "security.md").read_text()
FROM_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}
NO_OPERATIONS = ExportHead("2026-11-30T14:05:00Z", "0.1.0", 2, "pb", {})
VIEWER = {"grants": [{"actions": ["read"], "kinds": ["import"]}]}


def rows() -> dict[str, dict[str, str]]:
    """Return the response status of each call for each caller."""
    lines = PAGE.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| call | takes |"))
    table = takewhile(lambda line: line.startswith("|"), lines[at:])
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    head, _, *body = cells
    return {row[0].strip("`"): dict(zip(head[2:], row[2:], strict=True)) for row in body}


TABLE = rows()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return secured(tmp_path, max_long_poll_s=0.05)  # how long workers wait for signals


def body_of(call: str, id: str) -> dict[str, Any]:
    bodies: dict[str, Any] = {
        "POST /v1/operations/{id}/signals": {"type": "pause"},
        "PATCH /v1/operations/{id}": {"retention_s": 60.0},
        "POST /v1/operations:cancel": {"ids": [id]},
        "POST /v1/operations:signal": {"ids": [id], "type": "pause"},
        "POST /v1/operations:purge": {"ids": [id]},
        "POST /v1/operations/{id}/events": {"type": "log", "data": {"message": "hello"}},
        "POST /v1/workers/create": {},
        "POST /v1/workers/view": {"operation": id},
        "POST /v1/workers/publish": [{"operation": id}],
        "POST /v1/workers/signals": {"positions": {id: "0-0"}},
        "POST /v1/tickets": {"operations": [id]},
        "PUT /v1/admin/limits/{principal:path}": {"streams": 1},
        "PUT /v1/admin/retention": {"ended_s": 86400.0},
        "POST /v1/revocations": {"claim": "sub", "value": id},
    }
    if call == "POST /v1/import":
        return {"content": ExportWriter().head(NO_OPERATIONS) + ExportWriter().file_end()}
    return {"json": bodies[call]} if call in bodies else {}


async def dial(url: str, id: str, *, headers: Any = None, params: Any = None) -> httpx.Response:
    """Open a WebSocket, subscribe to an operation, and return the result as the status of a call."""
    query = f"?ticket={params['ticket']}" if params else ""
    async with connect(url + query, additional_headers=headers or {}) as socket, asyncio.timeout(60):
        with suppress(ConnectionClosed):  # messages of unauthenticated clients are not read
            await socket.send(json.dumps({"type": "subscribe", "operation": id}))
        while True:
            told = json.loads(await socket.recv())
            if told["event"] == "problem":
                return httpx.Response(told["status"], json=told)
            if told["event"] == "snapshot":
                return httpx.Response(200)


async def ask(http: httpx.AsyncClient, call: str, id: str, **how: Any) -> httpx.Response:
    """Make a call. For a stream, only wait for the head of the response."""
    method, path = call.split(" ")
    url = path.replace("{id}", id).replace("{connection}", "00000000-1").replace("{principal:path}", "noisy")
    if method == "WS":
        return await dial(f"{http.base_url.copy_with(scheme='ws')}{url}", id, **how)
    if path == "/v1/stream":
        how = how | {"params": {"operation": id} | how.get("params", {})}
    if call == "DELETE /v1/revocations":
        await http.post(path, json={"claim": "sub", "value": id}, headers=admin())
        how = how | {"params": {"claim": "sub", "value": id} | how.get("params", {})}
    elif call == "POST /v1/admin/drain":
        how = how | {"params": {"replica": "none"} | how.get("params", {})}
    elif call == "DELETE /v1/operations/{id}":
        how = how | {"params": {"force": True} | how.get("params", {})}
    async with http.stream(method, url, **how, **body_of(call, id)) as answer:
        if answer.headers.get("content-type") != "text/event-stream":
            await answer.aread()
        return answer


async def proofs(http: httpx.AsyncClient, id: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the credentials of each caller, in each form that it can use."""
    tokens = {"owner": token("alice", ALICE), "other": token("bob", ALICE), "viewer": token("vera", **VIEWER)}
    tokens["scraper"] = token("prometheus", grants=[{"actions": ["metrics"]}])
    tokens["admin"] = token("root", grants=[{"actions": ["admin"]}])
    ticket = await http.post(f"/v1/operations/{id}/tickets", headers=bearing(tokens["owner"]))
    return {
        **{(role, "header"): {"headers": bearing(it)} for role, it in tokens.items()},
        **{(role, "cookie"): {"headers": {"Cookie": f"{COOKIE}={it}"} | FROM_OUR_PAGE} for role, it in tokens.items()},
        ("publisher", "header"): {"headers": bearing(KEY)},
        ("ticket", "query"): {"params": {"ticket": ticket.json()["ticket"]}},
        ("nobody", "nothing"): {},
    }


@pytest.mark.parametrize("call", TABLE)
async def test_the_table_tells_what_each_caller_is_answered(http: httpx.AsyncClient, call: str) -> None:
    alice, told = bearing(token("alice", ALICE)), {}
    await create(http, "op", alice)
    ways = await proofs(http, "op")
    for number, (role, way) in enumerate(ways):
        id = f"op-{number}"
        await create(http, id, alice, kind="import", tags=["eu"])
        how = (await proofs(http, id))[role, way] if role == "ticket" else ways[role, way]
        answer = await ask(http, call, id, **how)
        told[role, way] = str(answer.status_code)
        if call in ("GET /v1/operations", "GET /v1/export") and answer.status_code == 200 and id not in answer.text:
            told[role, way] += ", without it"
        if call.startswith("GET "):
            assert (await ask(http, f"HEAD {call[4:]}", id, **how)).status_code == answer.status_code
    assert told == {(role, way): TABLE[call][role] for role, way in ways}


async def test_metrics_of_some_operations_are_none(http: httpx.AsyncClient) -> None:
    for claims in ({"scope": "metrics"}, {"grants": [{"actions": ["metrics"], "owners": ["alice"]}]}):
        answer = await http.get("/metrics", headers=bearing(token("alice", **claims)))
        assert answer.status_code == 403
        assert "the action metrics on all operations" in answer.json()["detail"]


@pytest.mark.parametrize("call", [call for call in TABLE if "404" in TABLE[call].values()])
async def test_what_may_not_be_read_is_answered_like_what_is_not_there(http: httpx.AsyncClient, call: str) -> None:
    await create(http, "hidden", bearing(token("alice", ALICE)), kind="import")
    await create(http, "gone-1", bearing(token("alice", ALICE)), kind="import")
    assert (await http.delete("/v1/operations/gone-1?force=true", headers=admin())).status_code == 204
    ways = await proofs(http, "hidden")
    for how in (how for (role, _), how in ways.items() if TABLE[call][role] == "404"):
        unknown = await ask(http, call, "none-1", **how)
        for id in ("hidden", "gone-1"):
            answer = await ask(http, call, id, **how)
            assert answer.status_code == unknown.status_code == 404
            assert seen(answer) == seen(unknown)
            assert answer.content.replace(id.encode(), b"none-1") == unknown.content


async def reads(store: Store) -> int:
    """Return how often an operation was read from Redis."""
    stats = await store.connections.commands.info("commandstats")
    return int(stats.get("cmdstat_hmget", {}).get("calls", 0))


class TestWhatItCosts:
    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        """Without what replicas do from time to time, which reads from Redis too."""
        never_s = 3600.0
        return secured(
            tmp_path, **dict.fromkeys(("sweep_interval_s", "lease_check_interval_s", "probe_interval_s"), never_s)
        )

    async def test_is_the_same_for_redis(self, http: httpx.AsyncClient, store: Store) -> None:
        await create(http, "hidden", bearing(token("alice", ALICE)))
        how = {"headers": bearing(token("bob", ALICE))}
        for call in (call for call in TABLE if TABLE[call]["other"] == "404"):
            costs: dict[str, list[int]] = {"hidden": [], "none-1": []}
            for id in ("hidden", "none-1", "hidden", "none-1", "hidden", "none-1"):
                before = await reads(store)
                assert (await ask(http, call, id, **how)).status_code == 404
                costs[id].append(await reads(store) - before)
            # What else reads meanwhile can only add to some of them.
            assert min(costs["hidden"]) == min(costs["none-1"]) > 0, f"{call}: {costs}"


def _routes(routes: Any) -> Iterator[tuple[str, str]]:
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _routes(inner.routes)
        elif isinstance(route, Mount):
            yield "GET", f"{route.path}/"
        else:
            for method in getattr(route, "methods", None) or ["WS"]:
                yield method, route.path


def test_every_call_there_is_has_a_row(app: Any) -> None:
    routes = set(_routes(app.routes))
    calls = {
        f"{method} {path}"
        for method, path in routes - {("GET", path) for method, path in routes if method == "WS"}  # these are 426
        if path not in OPEN_PATHS and not path.startswith("/web/") and method != "HEAD"  # only a GET has one
    }
    assert calls == set(TABLE)


async def test_nobody_gets_past_the_door_without_a_proof(http: httpx.AsyncClient, app: Any) -> None:
    for method, path in {*_routes(app.routes), ("GET", "/v1/none"), ("GET", "/nothing"), ("PUT", "/v1/operations")}:
        answer = await http.request(method if method != "WS" else "GET", re.sub(r"\{\w+\}", "a", path))
        is_open = path in OPEN_PATHS or path.startswith("/web/")
        assert (answer.status_code == 401) is not is_open, f"{method} {path}: {answer.status_code}"


async def test_grants_by_metadata_hold_for_all_calls_and_no_change_moves_an_operation(http: httpx.AsyncClient) -> None:
    """Every way to reach an operation decides by what it was created with."""
    red, blue = (
        bearing(token(who, grants=[{"actions": ["read", "create", "publish"], "metadata": {"tenant": [who]}}]))
        for who in ("red", "blue")
    )
    await create(http, "a", red, metadata={"tenant": "red", "n": 1})
    await create(http, "b", blue, metadata={"tenant": "blue"})
    for metadata in ({"tenant": "blue"}, {}):
        answer = await http.post("/v1/operations", json={"id": "c", "metadata": metadata}, headers=red)
        assert answer.status_code == 403
    change = {"type": "metadata", "data": {"tenant": "blue"}}
    assert (await http.post("/v1/operations/a/events", json=change, headers=red)).status_code == 200
    assert (await http.get("/v1/operations/a", headers=red)).json()["metadata"] == {"tenant": "blue", "n": 1}
    for headers, mine, theirs in ((red, "a", "b"), (blue, "b", "a")):
        assert (await http.get(f"/v1/operations/{mine}", headers=headers)).status_code == 200
        assert (await http.get(f"/v1/operations/{theirs}", headers=headers)).status_code == 404
        assert (await http.post(f"/v1/operations/{theirs}/events", json=change, headers=headers)).status_code == 404
        page = (await http.get("/v1/operations", headers=headers)).json()["operations"]
        assert [operation["id"] for operation in page] == [mine]
        query = {"query": {"metadata": {"tenant": "blue"}}}
        ticket = (await http.post("/v1/tickets", json=query, headers=headers)).json()["ticket"]
        in_both = [mine] if headers is blue else []
        for query, sent, readable in (("", headers, [mine]), (f"&ticket={ticket}", None, in_both)):
            async with http.stream("GET", f"/v1/stream?kind=operation{query}", headers=sent) as stream:
                lines = [line async for line in _until_data(stream)]
            assert json.loads(lines[-1].removeprefix("data:"))["operations"] == readable
    found = await http.get("/v1/operations?metadata=tenant:blue", headers=red)
    assert [operation["id"] for operation in found.json()["operations"]] == ["a"]


async def _until_data(stream: httpx.Response) -> AsyncIterator[str]:
    async for line in stream.aiter_lines():
        yield line
        if line.startswith("data:"):
            return


@pytest.mark.parametrize("metadata", [{}, {"a b": ["x"]}, {"a": []}, {"a": [None]}, {"a": [""]}, {"a": "x"}])
async def test_a_grant_by_metadata_that_can_not_be_searched_by_lets_nobody_in(
    http: httpx.AsyncClient, metadata: Any
) -> None:
    headers = bearing(token("alice", grants=[{"actions": ["read"], "metadata": metadata}]))
    assert (await http.get("/v1/operations", headers=headers)).status_code == 401
