"""What callers are told of invalid input is in the words of the contract: no names of our types, or of pydantic's."""

import re
from typing import Any

import httpx
import orjson
import pytest

from progress_server.routes.tickets import NewTicket
from tests.api.test_operations import OPS, create
from tests.cases import case

INTERNAL = re.compile(
    r"constrained|function-|nullable|literal\[|tagged|instance of|Value error|Assertion|validat"
    r"|\b[A-Z][a-z]+[A-Z]\w+|pydantic|\bmodel\b|\bunion\b"
)
BAD: list[Any] = [None, True, -1, 0, 1.5, 1e400, "", "\x00", "x" * 2_000, [], [None], {}, {"x": {}}, {"id": []}, [[1]]]
FIELDS = {
    "": ["id", "kind", "title", "owner", "tags", "parent", "weight", "lease_s", "unknown"],
    "/a/cancel": ["reason", "by", "force", "unknown"],
    "/a/signals": ["type", "data", "unknown"],
    "/a/events": ["type", "data", "producer", "seq", "unknown"],
}
SHAPES = {
    "progress": {
        **dict.fromkeys(("current", "total", "unit", "percent", "message", "rate", "eta_ms", "metrics"), BAD),
        "stages": [[it] for it in BAD] + [[{"name": "s", "status": it}] for it in BAD] + [[{}]],
        "workers": [*BAD, *({"workers": [{"id": it}]} for it in BAD), *({"active": it} for it in BAD)],
    },
    "log": {"level": BAD, "message": BAD, "stage": BAD},
    "status": {"status": BAD},
    "end": {"status": BAD, "error": [*BAD, {"type": 1}, {"type": "t", "message": []}]},
}


def bodies() -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = [(path, value) for path in FIELDS for value in BAD]
    for path, fields in FIELDS.items():
        least = {"type": "log", "data": {"message": "m"}} if path in ("/a/signals", "/a/events") else {}
        found += [(path, least | {field: value}) for field in fields for value in BAD]
    for type, shape in SHAPES.items():
        least = {"status": "succeeded"} if type == "end" else {"message": "m"} if type == "log" else {}
        found += [("/a/events", {"type": type, "data": value}) for value in BAD]
        found += [
            ("/a/events", {"type": type, "data": least | {field: value}})
            for field, values in shape.items()
            for value in values
        ]
    return found


def in_value(field: str, value: Any) -> bool:
    """Return whether a path leads to a part of a value, or to one that is missing there."""
    for part in field.split("."):
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = value.get(part)
        else:
            return False
    return True


def encoded(value: Any) -> bytes:
    return orjson.dumps(value).replace(b"null", b"1e400") if value == 1e400 else orjson.dumps(value)


def check(problem: dict[str, Any], value: Any) -> None:
    assert problem["type"] in ("invalid", "too-large", "operation-ended", "conflict", "fenced"), problem
    assert INTERNAL.search(problem["detail"]) is None, (problem, value)
    if "field" in problem and isinstance(value, dict):
        data = value.get("data")
        assert in_value(problem["field"], value) or in_value(problem["field"], data), (problem, value)


async def test_of_bodies(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    rejected = 0
    for path, value in bodies():
        answer = await http.post(f"{OPS}{path}", content=encoded(value))
        if answer.status_code >= 400:
            assert answer.status_code < 500, (path, value)
            check(answer.json(), value)
            rejected += 1
    assert rejected > 200


async def test_of_tickets_and_revocations(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for value in [*BAD, *({"operations": it} for it in BAD), *({"query": it} for it in BAD)]:
        answer = await http.post("/v1/tickets", content=encoded(value))
        if answer.status_code >= 400:
            check(answer.json(), value)
    for value in [*BAD, *({"claim": it, "value": "x"} for it in BAD), *({"claim": "sub", "value": it} for it in BAD)]:
        answer = await http.post("/v1/revocations", content=encoded(value))
        if answer.status_code >= 400:
            check(answer.json(), value)
    assert NewTicket.__name__ not in (await http.post("/v1/tickets", json=[])).text


BAD_QUERIES = [
    f"{OPS}?status=x",
    f"{OPS}?limit=x",
    f"{OPS}?owner=",
    f"{OPS}?parent=!",
    f"{OPS}/!",
    f"{OPS}/a?include=x",
    f"{OPS}/a/events?limit=0",
    f"{OPS}/a/events?wait=x",
    f"{OPS}/a/events?types=!",
    f"{OPS}/a/events?after=x",
    f"{OPS}/a/stream?children=x",
    f"{OPS}/a/stream?interval_ms=x",
    f"{OPS}/a/stream?ping=x",
    f"{OPS}/a/stream?from=x",
    "/v1/stream?operation=!",
    "/v1/stream?owner=",
    "/v1/stream?tag=a&tag=",
    "/v1/stream?wait_s=x&owner=a",
    "/v1/revocations?cursor=x",
]


async def test_of_queries(http: httpx.AsyncClient) -> None:
    await create(http, id="a")
    for path in BAD_QUERIES:
        with case(path):
            answer = await http.get(path)
            assert answer.status_code == 422
            told = answer.json()
            assert INTERNAL.search(told["detail"]) is None, told
            names = path.replace("=", "&").replace("?", "&").split("&")
            assert told["field"].partition(".")[0] in (*names, "id", "position")


@pytest.mark.parametrize("ref", [1.5, [], {}, "x" * 200, 2**60, True])
async def test_of_websocket_messages(http: httpx.AsyncClient, base_url: str, ref: Any) -> None:
    from websockets.asyncio.client import connect

    await create(http, id="a")
    async with connect(base_url.replace("http", "ws", 1) + "/v1/ws", proxy=None) as socket:
        await socket.recv()
        for asked in ({"type": "ping", "ref": ref}, {"type": "subscribe", "operation": "a", "types": ref, "ref": ref}):
            await socket.send(orjson.dumps(asked).decode())
            told = orjson.loads(await socket.recv())
            if told["event"] == "problem":
                check(told, asked)
                assert told["field"] in ("ref", "types")


def test_lines_of_cookies_are_joined_as_cookies() -> None:
    from starlette.requests import HTTPConnection

    from progress_server.callback.payloads import caller_in

    lines = [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"user-agent", b"x"), (b"user-agent", b"y")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": lines, "client": None}
    assert caller_in(HTTPConnection(scope)).headers == {"cookie": "a=1; b=2", "user-agent": "x, y"}
