"""The log of a server, as operators follow it."""

import asyncio
import json
import logging

import httpx

from progress_broker.settings import Settings
from progress_server.observability.log_ring import MOST_LISTENERS
from tests.servers import eventually

MONITOR = "/v1/admin/monitor"
log = logging.getLogger("progress_broker.test_of_monitor")


async def lines_of(http: httpx.AsyncClient, count: int, **query: object) -> list[dict[str, object]]:
    """Return the first lines that are told."""
    found: list[dict[str, object]] = []
    async with asyncio.timeout(60), http.stream("GET", MONITOR, params=query) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if len(found) == count:
                    break
    return found


async def test_what_was_logged_and_what_is_logged_then_is_told(http: httpx.AsyncClient) -> None:
    log.warning("before, with a %s", "/stream?ticket=s3cret", extra={"operation": "a"})
    telling = asyncio.create_task(lines_of(http, 2, logger=log.name))
    await asyncio.sleep(0)

    async def told() -> bool:
        log.error("afterwards")
        return telling.done()

    await eventually(told, "both lines are told")
    first, second = await telling
    assert (first["level"], first["operation"]) == ("warning", "a")
    assert first["message"] == "before, with a /stream?ticket=***"
    assert second["message"] == "afterwards"


async def test_lines_are_chosen_by_level(http: httpx.AsyncClient) -> None:
    for level in (logging.WARNING, logging.ERROR):
        log.log(level, "a line")
    [line] = await lines_of(http, 1, level="error", logger=log.name)
    assert line["level"] == "error"
    assert (await http.get(MONITOR, params={"level": "loud"})).status_code == 422


async def test_it_ends_when_the_server_drains(http: httpx.AsyncClient, app: object, settings: Settings) -> None:
    async with asyncio.timeout(60), http.stream("GET", MONITOR) as answer:
        assert answer.status_code == 200
        app.state.context.hub.drain()  # type: ignore[attr-defined]
        await answer.aread()
    assert not app.state.context.log.listeners  # type: ignore[attr-defined]


async def test_few_look_on_at_a_time(http: httpx.AsyncClient, app: object) -> None:
    ring = app.state.context.log  # type: ignore[attr-defined]
    log.warning("for each of them")
    following = [ring.follow(1, 1.0) for _ in range(MOST_LISTENERS)]
    for lines in following:
        await anext(lines)
    answer = await http.get(MONITOR)
    assert (answer.status_code, answer.json()["type"]) == (503, "at-capacity")
    for lines in following:
        await lines.aclose()
