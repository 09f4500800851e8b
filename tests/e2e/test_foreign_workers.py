"""Workers in other languages write directly into Redis. Whatever they write, streams stay valid."""

import asyncio
from contextlib import aclosing

import pytest
from httpx_sse import ServerSentEvent

from progress_broker.model.operation import RESERVED_TYPES
from tests.e2e.harness import KEYS, Api, ForeignWorker
from tests.e2e.test_httpx_sse import DEADLINE_S, events, numbers, whole

NOT_JSON = {
    "broken UTF-8": b'{"message":"\xff\xfe\xc3"}',
    "a raw line feed in a string": b'{"message":"a\ndata: b\n\nevent: end\n\n"}',
    "a raw carriage return in a string": b'{"message":"a\rdata: b"}',
    "frames of its own": b"{}\n\nid: 1-1\nevent: end\ndata: {}\n\n",
    "a raw NUL": b'{"message":"\0"}',
    "not JSON": b"half way",
    "nothing": b"",
    "NaN": b'{"percent":NaN}',
    "cut off": b'{"message":"',
    "two values": b"{} {}",
    "an escape that is none": b'"\\x"',
    "half of a surrogate pair": b'"\\ud800"',
    "too deep": b"[" * 5000 + b"]" * 5000,
}
RESERVED = [type.encode() for type in sorted(RESERVED_TYPES - {"child", "malformed"})]
NOT_TYPES = {"empty": "", "upper case": "Progress", "two lines": "log\ndata: x", "long": "a" * 65, "foreign": "ä"}


def check_malformed(event: ServerSentEvent, size: int) -> None:
    envelope = event.json()
    assert (event.event, envelope["type"]) == ("malformed", "malformed")
    assert envelope["data"]["bytes"] == size
    assert envelope["data"]["reason"]


async def test_what_is_not_json_arrives_as_one_well_formed_event(api: Api, foreign: ForeignWorker) -> None:
    operation = api.create()
    async with asyncio.timeout(DEADLINE_S), aclosing(events(api.stream(operation))) as live:
        await anext(live)
        for data in NOT_JSON.values():
            foreign.publish(operation, "log", data)
        for type in NOT_TYPES.values():
            foreign.publish(operation, type, b"{}")
        api.log(operation, "and it goes on")
        api.finish(operation)
        seen = [event async for event in live]
    assert numbers(seen) == list(range(2, len(seen) + 2))
    for event, data in zip(seen, [*NOT_JSON.values(), *[b"{}"] * len(NOT_TYPES)], strict=False):
        check_malformed(event, len(data))
    assert [event.event for event in seen[-2:]] == ["log", "end"]
    replayed = await whole(f"{api.stream(operation)}?from=start")
    assert [event.json() for event in replayed[1:]] == [event.json() for event in seen]
    assert api.history(operation)[1:] == [event.json() for event in seen]


@pytest.mark.parametrize("name", NOT_JSON)
async def test_the_snapshot_survives_it_too(api: Api, foreign: ForeignWorker, name: str) -> None:
    operation = api.create()
    foreign.publish(operation, "progress", NOT_JSON[name], "running")
    assert api.show(operation)["progress"] is None
    api.finish(operation)
    fresh, last = await whole(api.stream(operation))
    assert fresh.json()["data"] == api.show(operation)
    assert last.event == "end"


async def test_an_end_in_broken_utf8_ends_the_stream_all_the_same(api: Api, foreign: ForeignWorker) -> None:
    operation = api.create()
    async with asyncio.timeout(DEADLINE_S), aclosing(events(api.stream(operation))) as live:
        await anext(live)
        foreign.publish(operation, "end", b'{"status":"succeeded","result":"\xff"}', "succeeded")
        seen = [event async for event in live]
    shown = api.show(operation)
    assert (shown["status"], shown["done"], shown["result"], shown["error"]) == ("succeeded", True, None, None)
    assert numbers(seen) == [shown["events"]]
    async with asyncio.timeout(DEADLINE_S):
        fresh = [event async for event in events(api.stream(operation))]
    assert fresh[0].json()["data"] == shown
    assert numbers(fresh) == [shown["events"]] * 2
    answer = api.http.get(api.stream(operation), headers={"Last-Event-ID": shown["position"]})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_entries_written_past_the_script_arrive_and_break_nothing(api: Api, foreign: ForeignWorker) -> None:
    operation, other = api.create(), api.create()
    async with (
        asyncio.timeout(DEADLINE_S),
        aclosing(events(api.stream(operation))) as live,
        aclosing(events(api.stream(other))) as beside,
    ):
        await anext(live)
        await anext(beside)
        for data in NOT_JSON.values():
            foreign.add(operation, {"t": b"log", "d": data})
        for type in RESERVED:
            foreign.add(operation, {"t": type, "d": b"{}"})
        foreign.add(operation, {"t": b"\xff\n", "d": b"{}"})
        foreign.add(operation, {"nothing": b"we know"})
        api.log(operation, "and it goes on")
        api.log(other, "here too")
        seen = [await anext(live) for _ in range(len(NOT_JSON) + len(RESERVED) + 3)]
        assert (await anext(beside)).json()["data"] == {"message": "here too"}
    for event, data in zip(seen, [*NOT_JSON.values(), *[b"{}"] * (len(RESERVED) + 1)], strict=False):
        check_malformed(event, len(data))
    assert numbers(seen) == list(range(2, len(seen) + 2))
    assert seen[-1].json()["data"] == {"message": "and it goes on"}


async def test_a_hand_that_does_not_count_is_told_of_and_survived(api: Api, foreign: ForeignWorker) -> None:
    """Its entry has the same number as the next one. Subscribers get a new snapshot."""
    operation = api.create()
    async with asyncio.timeout(DEADLINE_S), aclosing(events(api.stream(operation))) as live:
        await anext(live)
        foreign.add(operation, {"t": b"log", "d": b'"\xff"'}, honest=False)
        check_malformed(await anext(live), 3)
        api.log(operation, "the real second")
        told = await anext(live)
        assert (told.event, told.json()["reset"]) == ("snapshot", "lost")
        api.log(operation, "the third")
        api.finish(operation)
        assert [event.json()["n"] async for event in live] == [3, 4]


@pytest.mark.parametrize("n", [b"", b"x", b"-1", b"99999999999999999999999999", b"1.5", b"\xff"])
async def test_a_number_that_is_none_is_passed_over(api: Api, foreign: ForeignWorker, n: bytes) -> None:
    operation = api.create()
    async with asyncio.timeout(DEADLINE_S), aclosing(events(api.stream(operation))) as live:
        await anext(live)
        foreign.redis.xadd(_feed(operation), {"o": operation, "n": n, "t": "log", "d": '{"message":"?"}'})
        foreign.redis.xadd(_feed(operation), {"x": n})
        api.log(operation, "on")
        api.finish(operation)
        seen = [event async for event in live]
    assert numbers(seen) == [2, 3]


def _feed(operation: str) -> str:
    return KEYS.operation(operation).lane.feed
