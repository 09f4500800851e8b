"""httpx-sse, an independent Python client, with a server as users run it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import orjson
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from tests.e2e.harness import Api

DEADLINE_S = 60

NASTY = {
    "a line feed": "one\ntwo\n\nthree",
    "a carriage return": "one\rtwo\r\n\r\nthree",
    "field names": "data: x\nid: 1-1\nevent: end\nretry: 1\n\n",
    "nul": "a\0b",
    "line separators": "a\u2028b\u2029c\u0085d\x0be\x0cf",
    "a byte order mark": "\ufeffa",
    "beyond the basic plane": "\U0001f600 ä",
    "all controls": "".join(map(chr, range(32))),
    "empty": "",
    "60 KiB": "x" * (60 * 1024),
    "60 KiB of three bytes each": "€" * (20 * 1024),
}


async def events(url: str, **request: Any) -> AsyncIterator[ServerSentEvent]:
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client, aconnect_sse(client, "GET", url, **request) as source:
        source.response.raise_for_status()
        async for event in source.aiter_sse():
            if event.event != "bookmark":  # tests/api/test_bookmarks.py looks at these
                yield event


async def whole(url: str, **request: Any) -> list[ServerSentEvent]:
    """Return the events of a stream, which must end."""
    async with asyncio.timeout(DEADLINE_S):
        return [event async for event in events(url, **request)]


def numbers(found: list[ServerSentEvent]) -> list[int]:
    return [event.json()["n"] for event in found if event.event not in ("reconnect", "ping")]


async def test_a_run_from_its_creation_to_its_end(api: Api) -> None:
    operation = api.create(kind="import", title="Import customers")
    async with asyncio.timeout(DEADLINE_S), aclosing(events(api.stream(operation))) as stream:
        first = await anext(stream)
        assert first.event == "snapshot"
        assert first.json()["data"] == api.show(operation)
        api.publish(operation, "progress", {"current": 1, "total": 2, "percent": 50})
        api.log(operation, "half way")
        api.publish(operation, "pipeline_progress", {"stage": "parse"})
        api.finish(operation, {"rows": 2})
        rest = [event async for event in stream]
    assert [event.event for event in rest] == ["status", "progress", "log", "pipeline_progress", "end"]
    assert numbers(rest) == [2, 3, 4, 5, 6]
    assert rest[1].json()["data"] == {"current": 1, "total": 2, "percent": 50}
    assert rest[-1].json()["data"] == {"status": "succeeded", "result": {"rows": 2}, "error": None}
    assert rest[-1].id == api.show(operation)["position"]
    assert [event.json() for event in rest] == api.history(operation)[1:]


async def test_cut_anywhere_it_resumes_without_a_hole_or_a_repeat(api: Api) -> None:
    operation = api.create()
    api.log(operation, *map(str, range(60)))
    seen: list[ServerSentEvent] = []
    async with asyncio.timeout(DEADLINE_S):
        for published, until in enumerate((1, 2, 17, 30, 59, 61, 64)):
            headers = {"Last-Event-ID": seen[-1].id} if seen else {}
            async with aclosing(events(f"{api.stream(operation)}?from=start", headers=headers)) as stream:
                api.log(operation, f"while cut {published}")
                while len(seen) < until:
                    seen.append(await anext(stream))
        api.finish(operation)
        seen += await whole(api.stream(operation), headers={"Last-Event-ID": seen[-1].id})
    assert numbers(seen) == list(range(1, 70))
    assert [event.json() for event in seen] == api.history(operation)


async def test_an_end_that_was_seen_is_told_to_be_the_end(api: Api) -> None:
    operation = api.create()
    api.finish(operation)
    last = (await whole(api.stream(operation)))[-1]
    for request in ({"headers": {"Last-Event-ID": last.id}}, {"params": {"last_event_id": last.id}}):
        answer = api.http.get(api.stream(operation), **request)
        assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize("name", NASTY)
async def test_a_payload_arrives_as_it_was_sent(api: Api, name: str) -> None:
    text = NASTY[name]
    operation = api.create(title=text[:500] or None)
    api.publish(operation, "custom.event", {"text": text, text[:80]: [text[:80]]})
    api.publish(operation, "log", {"message": text})
    api.finish(operation, text)
    found = await whole(f"{api.stream(operation)}?from=start")
    assert [event.event for event in found] == ["status", "custom.event", "log", "end"]
    assert found[1].json()["data"] == {"text": text, text[:80]: [text[:80]]}
    assert found[2].json()["data"] == {"message": text}
    assert found[3].json()["data"]["result"] == text
    fresh = await whole(api.stream(operation))
    assert fresh[0].json()["data"]["title"] == (text[:500] or None)


async def test_a_payload_over_the_limit_is_rejected_and_nobody_hears_of_it(api: Api) -> None:
    operation = api.create()
    body = {"type": "log", "data": {"message": "x" * 65_536}}
    assert api.http.post(f"/v1/operations/{operation}/events", json=body).status_code == 413
    api.finish(operation)
    assert numbers(await whole(f"{api.stream(operation)}?from=start")) == [1, 2]


async def test_publishing_pretty_printed_json_keeps_an_event_one_line(api: Api) -> None:
    operation = api.create()
    body = orjson.dumps({"type": "custom", "data": {"a": [1, {"b": "c\r\nd"}]}}, option=orjson.OPT_INDENT_2)
    api.http.post(f"/v1/operations/{operation}/events", content=body.replace(b"\n", b"\r\n")).raise_for_status()
    api.finish(operation)
    found = await whole(f"{api.stream(operation)}?from=start")
    assert found[1].json()["data"] == {"a": [1, {"b": "c\r\nd"}]}


async def test_a_hundred_watchers_see_the_same(api: Api) -> None:
    operation = api.create()
    async with httpx.AsyncClient(timeout=DEADLINE_S, limits=httpx.Limits(max_connections=None)) as client:

        async def watch(opened: asyncio.Event) -> list[int]:
            async with aconnect_sse(client, "GET", f"{api.stream(operation)}?from=start") as source:
                found = []
                async for event in source.aiter_sse():
                    opened.set()
                    if event.event != "bookmark":
                        found.append(event.json()["n"])
                return found

        opened = [asyncio.Event() for _ in range(100)]
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            watchers = [group.create_task(watch(event)) for event in opened]
            for event in opened:
                await event.wait()
            for batch in range(8):
                await asyncio.to_thread(api.log, operation, *(f"{batch} {line}" for line in range(10)))
            await asyncio.to_thread(api.finish, operation)
    assert {tuple(watcher.result()) for watcher in watchers} == {tuple(range(1, 83))}
