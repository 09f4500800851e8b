"""History from its newest event back, its tail, and what is left out of it."""

from typing import Any

import httpx
import pytest

from progress_broker.history import event_log
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from tests.api.test_operations import OPS, problem

LEVELS = ("debug", "info", "warning", "error", "critical")


async def read(http: httpx.AsyncClient, query: str) -> dict[str, Any]:
    answer = await http.get(f"{OPS}/a/events?{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def back(http: httpx.AsyncClient, query: str) -> list[int]:
    """Return the numbers of all events, page by page, from the newest back."""
    numbers: list[int] = []
    page = await read(http, f"order=desc&{query}")
    while True:
        numbers += [event["n"] for event in page["events"]]
        if page["done"]:
            return numbers
        page = await read(http, f"before={page['position']}&{query}")


@pytest.fixture
async def lines(store: Store) -> None:
    """An operation with log lines and progress, most of which have left its log."""
    await store.create(NewOperation(id="a", history_length=20))
    for number in range(60):
        line = {"message": f"Line\n{number} of Köln", "level": LEVELS[number % 5]}
        await store.publish(
            "a", [encode("log", line, store.settings), encode("progress", {"percent": 1}, store.settings)]
        )
    await store.publish(
        "a", [encode("end", {"status": "failed", "error": {"type": "x", "message": "x"}}, store.settings)]
    )


@pytest.mark.usefixtures("lines")
async def test_back_is_the_same_as_forwards(http: httpx.AsyncClient, store: Store) -> None:
    kept = [event.n for event in await event_log.kept(store, "a", 1_000)]
    keys = store.keyspace.operation("a")
    assert await store.connections.commands.xlen(keys.log) < len(kept), "some have left the log"
    for limit in (1, 7, 1_000):
        assert await back(http, f"limit={limit}") == kept[::-1]
    first = (await read(http, "order=desc&limit=1"))["events"]
    assert [event["type"] for event in first] == ["end"]
    assert (await read(http, "before=1-0"))["events"] == []
    assert (await read(http, "before=0-0"))["done"] is True


@pytest.mark.usefixtures("lines")
async def test_a_tail_is_the_newest_that_match(http: httpx.AsyncClient) -> None:
    page = await read(http, "tail=3&types=log")
    assert [event["type"] for event in page["events"]] == ["log", "log", "end"]
    assert page["done"] is True
    assert (await read(http, f"after={page['position']}"))["events"] == []
    assert [event["n"] for event in (await read(http, "tail=2"))["events"]] == [122, 123]


@pytest.mark.usefixtures("lines")
async def test_levels_and_texts(http: httpx.AsyncClient) -> None:
    def shown(page: dict[str, Any]) -> list[str]:
        return [event["data"].get("message", "") for event in page["events"] if event["type"] == "log"]

    severe = shown(await read(http, "tail=1000&types=log&level=error"))
    assert len(severe) == 24
    assert severe == shown(await read(http, "types=log&level=error&limit=1000"))
    assert shown(await read(http, "tail=9&grep=KÖLN"))[-1] == "Line\n59 of Köln"
    assert shown(await read(http, "tail=1000&grep=%0A17")) == ["Line\n17 of Köln"]
    assert shown(await read(http, "tail=9&grep=message")) == [], "names of members are not searched"
    for query, field in {
        "before=1-0&after=1-0": "after",
        "order=desc&wait=1": "after",
        "tail=1&before=1-0": "tail",
        "tail=1&order=desc": "tail",
        "level=bad": "level",
        "before=x": None,
    }.items():
        bad = problem(await http.get(f"{OPS}/a/events?{query}"), 422, "invalid")
        assert field in (None, bad["field"])
    for query in ("order=desc", "tail=5"):
        problem(await http.get(f"{OPS}/none/events?{query}"), 404, "not-found")
