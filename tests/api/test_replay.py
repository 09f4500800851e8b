"""A replay over HTTP: the frames of a stream, in their order, and an end."""

import time

import httpx
import orjson

from progress_broker.history import event_log
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.stream.frames import make_frame
from tests.transfer.fleet import SUCCEEDED, make_fleet, publish

PATH = "/v1/operations/{}/replay"


def end_of(text: bytes) -> dict[str, object]:
    *_, last, empty = text.split(b"\n\n")
    assert empty == b""
    assert b"event: replay-end\n" in last
    said: dict[str, object] = orjson.loads(last.partition(b"data: ")[2])
    return said


async def test_it_sends_the_frames_that_a_stream_sends(http: httpx.AsyncClient, store: Store) -> None:
    await make_fleet(store)
    for id in ("long", "short", "foreign"):
        frames = [make_frame(event).wire for event in await event_log.kept(store, id, 10_000)]
        answer = await http.get(PATH.format(id), params={"speed": "max"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        begin, _, events = answer.content.partition(b": connected\n")
        assert begin.startswith(b"retry: ")
        assert events[: events.index(b"event: replay-end")] == b"".join(frames)
        assert end_of(answer.content)["events"] == len(frames)


async def test_it_goes_on_after_a_position_and_ends_with_204(http: httpx.AsyncClient, store: Store) -> None:
    await make_fleet(store)
    events = await event_log.kept(store, "long", 10_000)
    middle, last = events[200].position.decode(), events[-1].position.decode()
    answer = await http.get(PATH.format("long"), params={"speed": "max"}, headers={"Last-Event-ID": middle})
    assert end_of(answer.content)["events"] == len(events) - 201
    assert (await http.get(PATH.format("long"), params={"after": last})).status_code == 204
    only = await http.get(PATH.format("long"), params={"speed": "max", "types": "progress"})
    assert {line for line in only.content.splitlines() if line.startswith(b"event: ")} == {
        *(b"event: progress", b"event: end", b"event: replay-end")
    }
    none = await http.get(PATH.format("long"), params={"until": "2020-01-01T00:00:00Z"})
    assert end_of(none.content)["events"] == 0


async def test_pauses_are_as_they_were_or_cut(http: httpx.AsyncClient, store: Store) -> None:
    await store.create(NewOperation(id="slow"))
    await publish(store, "slow", 1)
    time.sleep(0.4)
    await store.publish("slow", [SUCCEEDED])
    began = time.monotonic()
    said = end_of((await http.get(PATH.format("slow"))).content)
    assert time.monotonic() - began >= 0.4
    assert isinstance(said["late_p99_ms"], int)
    for bad in ({"speed": "0"}, {"speed": "fast"}, {"since": "soon"}, {"after": "x"}, {"idle": "2s"}):
        assert (await http.get(PATH.format("slow"), params=bad)).status_code == 422, bad
    assert (await http.get(PATH.format("nobody"))).status_code == 404
