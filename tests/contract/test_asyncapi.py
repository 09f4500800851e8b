"""The description of the streams is valid AsyncAPI, and what a server sends is what it says."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from websockets.asyncio.client import connect as connect_websocket

from progress_server.description.asyncapi import asyncapi
from tests import sse
from tests.api.conftest import *  # noqa: F403 - the fixtures of a server
from tests.api.test_operations import OPS, create, finish, publish

SCHEMA = Path(__file__).parents[1] / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(orjson.dumps(asyncapi()))
    return found


def test_it_is_valid(document: dict[str, Any]) -> None:
    validator = Draft7Validator(orjson.loads(SCHEMA.read_bytes()))
    assert [fault.message for fault in validator.iter_errors(document)] == []
    assert not validator.is_valid(document | {"channels": {"x": {"messages": 1}}}), "the schema does look at it"


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def check(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                at: Any = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    at = at[part]
            value = list(value.values())
        for inner in value if isinstance(value, list) else ():
            check(inner)

    check(document)


def validators(document: dict[str, Any], channel: str) -> dict[str, list[Draft202012Validator]]:
    """Return what each kind of message on a channel has to be like."""
    found: dict[str, list[Draft202012Validator]] = {}
    for name in document["channels"][channel]["messages"]:
        message = document["components"]["messages"][name]
        schema = message["payload"] | {"components": document["components"]}
        found.setdefault(message["name"], []).append(Draft202012Validator(schema))
    return found


def is_described(kinds: dict[str, list[Draft202012Validator]], payload: Any) -> bool:
    return any(it.is_valid(payload) for found in kinds.values() for it in found)


async def use(http: Any) -> None:
    """Have each kind of event of an operation and its child."""
    await create(http, id="child", parent="a")
    await publish(http, "a", "progress", {"current": 1, "total": 2, "stages": [{"name": "s"}]})
    await publish(http, "a", "log", {"message": "m"})
    await publish(http, "a", "custom.type", [1])
    await http.post(f"{OPS}/a/cancel", json={"reason": "r"})
    await finish(http, "a")


@pytest.mark.parametrize(
    ("channel", "query"),
    [
        ("stream", f"{OPS}/a/stream?children=true&ping=event"),
        ("stream", f"{OPS}/a/stream?from=start"),
        ("streamOfMany", "/v1/stream?operation=a&ping=event"),
        ("streamOfMany", "/v1/stream?operation=a&operation=nowhere"),
    ],
)
async def test_streams_are_as_described(http: Any, document: dict[str, Any], channel: str, query: str) -> None:
    kinds = validators(document, channel)
    await create(http, id="a")
    async with http.stream("GET", query) as answer, asyncio.timeout(60):
        chunks = answer.aiter_bytes()
        got = await anext(chunks)
        using = asyncio.create_task(use(http))
        async for chunk in chunks:
            got += chunk
            if b"event: end\n" in got:
                break
        await using
    told = sse.read(got)
    assert {"snapshot", "progress", "log", "custom.type", "end"} - {message.type for message in told} <= {"snapshot"}
    for message in told:
        found = kinds.get(message.type, kinds["CustomEnvelope"])
        assert any(it.is_valid(message.json) for it in found), message


async def test_websockets_are_as_described(http: Any, base_url: str, document: dict[str, Any]) -> None:
    kinds = validators(document, "webSocketOfMany")
    await create(http, id="a")
    await publish(http, "a", "status", {"status": "running"})  # so that the cancel does not end it
    async with (
        connect_websocket(base_url.replace("http", "ws", 1) + "/v1/ws", proxy=None) as socket,
        asyncio.timeout(60),
    ):
        requests: list[dict[str, Any]] = [
            {"type": "subscribe", "operation": "a", "from": "start", "children": True, "ref": 1},
            {"type": "ping", "ref": "x"},
            {"type": "subscribe", "operation": "nowhere"},
            {"type": "what"},
            {"type": "unsubscribe", "operation": "a"},
            {"type": "subscribe", "operation": "a"},
            {"type": "cancel", "operation": "a"},
        ]
        for asked in requests:
            assert is_described(kinds, asked) == (asked["type"] != "what")
            await socket.send(orjson.dumps(asked).decode())
        using = asyncio.create_task(use(http))
        told = []
        left = {("unsubscribed", "ended"), ("cancelled", None)}  # in any order: a cancel may come after the end
        while left:
            told.append(orjson.loads(await socket.recv()))
            left.discard((told[-1]["event"], told[-1].get("reason")))
        await using
    names = {message["event"] for message in told}
    assert {"open", "subscribed", "pong", "problem", "unsubscribed", "cancelled", "snapshot", "end"} <= names
    for message in told:
        assert is_described(kinds, message), message
