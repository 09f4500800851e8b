"""What a client reads and changes, the same over HTTP and in Redis."""

import asyncio
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from progress_broker.model.position import milliseconds
from progress_broker.settings import Settings
from progress_client import (
    AsyncClient,
    Child,
    Client,
    Custom,
    End,
    Gone,
    InvalidInput,
    Log,
    MetadataChange,
    NotFound,
    OperationEnded,
    Progress,
    Reset,
    SetupError,
    Snapshot,
    Status,
    StatusChange,
)
from progress_client import events as typed
from tests.conftest import make_settings
from tests.servers import DEADLINE_S, wait_until


def run(client: Client, id: str) -> None:
    """Report an operation from its beginning to its end."""
    client.create("import", id=id, title="Rows", tags=["eu"])
    client.publish(id, "progress", {"current": 1, "total": 4, "unit": "rows", "message": "reading", "extra": 7})
    client.publish(id, "log", {"message": "half way", "level": "warning", "stage": "parse"})
    client.publish(id, "thumbnail", {"url": "/1.png"})
    client.create("part", id=f"{id}-child", parent=id, weight=2)
    client.publish(id, "end", {"status": "succeeded", "result": {"rows": 4}})


def test_it_gets_lists_and_changes(client: Client, id: str) -> None:
    made = client.create("import", id=id, owner="ann", tags=[id, "eu"], metadata={"url": "a:b=c", "rows": 4})
    assert (made.id, made.status, made.current, made.total, made.percent) == (id, "pending", None, None, None)
    client.publish(id, "progress", {"current": 1, "total": 4, "unit": "rows"})
    now = client.get(id)
    assert (now.current, now.total, now.percent, now.status) == (1, 4, 25, Status.RUNNING)
    assert repr(now) == str(now) == f"<Operation {id}: running, 25.0 %, 1 of 4 rows>"
    assert [it.id for it in client.list(tag=[id, "eu"], status="running", owner="ann", kind="import")] == [id]
    assert list(client.list(tag=id, status=[Status.FAILED, "cancelled"])) == []
    assert [it.id for it in client.list(tag=id, metadata={"url": "a:b=c", "rows": 4})] == [id]
    assert list(client.list(tag=id, metadata={"rows": 5})) == []
    client.create(id=f"{id}-child", parent=id)
    children = client.get(id, list_children=True).children
    assert children is not None
    assert children.total == 1
    assert abs(client.now() - now.created_at) < timedelta(hours=1)
    client.signal(id, "pause", {"for": 3})
    with pytest.raises(InvalidInput, match="at most 1024 characters"):
        client.cancel(id, "x" * 1025)
    asked = client.cancel(id, why := "too slow".ljust(1024, "!"))
    assert (asked.status, asked.cancel and asked.cancel.reason) == ("cancelling", why)
    assert client.cancel(id, force=True).status == "cancelled"
    with pytest.raises(OperationEnded):
        client.signal(id, "pause")
    with pytest.raises(OperationEnded):
        client.publish(id, "log", {"message": "late"})


def test_whatever_an_application_notes_is_read(client: Client, id: str) -> None:
    deep: list[object] = []
    for _ in range(220):
        deep = [deep]
    metadata = {"deep": deep, "": [], "a\nb:=": "\x00", "large": 1e300, "64 bits": 2**64 - 1}
    client.create(id=id, kind=id, metadata=metadata)
    assert client.get(id).metadata == metadata
    assert [it.metadata for it in client.list(kind=id)] == [metadata]


def test_a_listing_goes_over_pages(client: Client, id: str) -> None:
    names = [f"{id}-{i}" for i in range(5)]
    for name in names:
        client.create(id=name, tags=[id])
    assert sorted(it.id for it in client.list(tag=id, page_size=2)) == names


def test_changes_of_the_metadata_are_events_that_make_up_what_it_is(client: Client, id: str) -> None:
    client.create(id=id, metadata={"a": 1, "b": 2})
    client.publish(id, "metadata", {"a": None, "c": [1]})
    client.publish(id, "end", {"status": "succeeded"})
    [change] = [event for event in client.watch(id, after="start") if isinstance(event, MetadataChange)]
    assert change.changes == {"a": None, "c": [1]}
    assert client.get(id).metadata == {"b": 2, "c": [1]}
    assert client.get(id).elapsed_ms is None
    assert [it.id for it in client.list(metadata={"b": 2}) if it.id == id] == [id]
    assert [it.id for it in client.list(metadata={"a": 1}) if it.id == id] == []


def test_each_kind_of_event_has_a_type(client: Client, id: str) -> None:
    run(client, id)
    events = list(client.watch(id, after="start"))
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    kinds = [type(event) for event in events]
    assert kinds == [StatusChange, StatusChange, Progress, Log, Custom, Child, End]
    for event in events:
        assert event.operation == id
        assert abs(event.at - datetime.now(UTC)) < timedelta(hours=1)
    _, begun, progress, line, custom, child, end = events
    match progress, line, child:
        case Progress(percent=25.0, message="reading", current=1.0, unit="rows"), Log(
            message="half way", level="warning"
        ), Child():
            assert child.child == f"{id}-child"
        case _:
            pytest.fail(f"{progress}, {line}, {child}")
    assert isinstance(begun, StatusChange)
    assert (begun.status, begun.attempt, begun.reason) == ("running", None, None)
    assert (progress.data["extra"], custom.type, custom.data) == (7, "thumbnail", {"url": "/1.png"})
    match end:
        case End(status=Status.SUCCEEDED, result={"rows": 4}, error=None):
            pass
        case _:
            pytest.fail(repr(end))


def test_an_operation_that_has_ended_is_its_snapshot_and_its_end(client: Client, id: str) -> None:
    run(client, id)
    snapshot, end = client.watch(id)
    assert isinstance(snapshot, Snapshot)
    assert isinstance(end, End)
    assert (snapshot.state.status, snapshot.n, end.n, snapshot.position) == ("succeeded", 7, 7, end.position)
    assert [type(it) for it in client.watch(id, types=["log"])] == [Snapshot, End]
    assert list(client.watch(id, after=end.position)) == []


def test_it_goes_on_after_a_position(client: Client, id: str) -> None:
    run(client, id)
    every = list(client.watch(id, after="start"))
    for skipped, event in enumerate(every[:-1], 1):
        assert list(client.watch(id, after=event.position)) == every[skipped:]
    assert list(client.watch(id, after="0-0")) == every
    assert [type(it) for it in client.watch(id, after="start", types=["log", "thumbnail"])] == [Log, Custom, End]


def test_it_is_told_of_a_position_that_is_lost(client: Client, id: str) -> None:
    run(client, id)
    reset, *others, end = client.watch(id, after="99999999999999-0")
    assert others == list(client.watch(id, after="start"))[:-1], "nobody knows which of these it has"
    match reset:
        case Reset(reason="lost", state=state):
            assert state.done
        case _:
            pytest.fail(repr(reset))
    assert isinstance(end, End)


def test_it_goes_on_after_any_time_that_is_kept(client: Client, id: str) -> None:
    client.create(id=id, history_length=10)
    for part in range(16):  # most of it is moved out of the log
        told = time.monotonic()
        for line in range(10):
            client.publish(id, "progress" if line else "log", {"message": f"{part}"})
        wait_until(lambda told=told: time.monotonic() > told + 0.01, "time passes")
    client.publish(id, "end", {"status": "succeeded"})
    every = list(client.watch(id, after="start"))
    gaps = 0
    for skipped, (one, other) in enumerate(pairwise(every), 1):
        between = f"{milliseconds(one.position.encode()) + 1}-0"
        if milliseconds(other.position.encode()) > milliseconds(between.encode()):
            gaps += 1
            assert list(client.watch(id, after=between)) == every[skipped:]
    assert gaps >= 16
    assert list(client.watch(id, after="1-0")) == every
    assert [type(it) for it in client.watch(id, after="1-0", types=["metadata"])] == [End]


def test_it_is_told_what_happens_as_it_happens(client: Client, id: str) -> None:
    client.create(id=id)
    events = client.watch(id)
    assert isinstance(next(events), Snapshot)
    for percent in range(0, 100, 10):
        client.publish(id, "progress", {"percent": percent})
        event = next(events)
        if isinstance(event, StatusChange):
            event = next(events)
        assert isinstance(event, Progress)
        assert event.percent == percent
    client.cancel(id, "enough", by="ann")
    asked = next(events)
    assert isinstance(asked, StatusChange)
    assert (asked.status, asked.reason, asked.by) == ("cancelling", "enough", "ann")
    client.publish(id, "end", {"status": "cancelled"})
    assert [type(event) for event in events] == [End]


def test_it_waits_for_the_end(client: Client, id: str) -> None:
    client.create(id=id)
    client.publish(id, "progress", {"percent": 40})
    with pytest.raises(TimeoutError, match=rf"<Operation {id}: running, 40.0 %> has not ended within 0.5 s"):
        client.wait(id, 0.5)
    with pytest.raises(TimeoutError, match=rf"<Operation {id}: running, 40.0 %> has not ended"):
        client.wait(id, 0)
    ender = threading.Timer(0.2, client.publish, (id, "end", {"status": "failed", "error": {"type": "Boom"}}))
    ender.start()
    ended = client.wait(id, 60)
    ender.join()
    assert (ended.status, repr(ended)) == ("failed", f"<Operation {id}: failed, 40.0 %, Boom>")
    assert client.wait(id, 60) == client.wait(id, 0) == ended


async def test_a_cancellation_at_any_moment_ends_what_waits(aclient: AsyncClient, id: str) -> None:
    """Before Python 3.12, one that comes as a command of Redis has been sent is swallowed."""
    await aclient.create(id=id)
    for moment in range(30):
        waiting = asyncio.create_task(aclient.wait(id))
        for _ in range(moment):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=DEADLINE_S)
        assert waiting.cancelled(), moment


def test_what_is_missing_or_deleted_is_an_error(client: Client, id: str, server: object, where: Settings) -> None:
    for call in (
        client.get,
        client.wait,
        lambda it: list(client.watch(it)),
        lambda it: list(client.watch(it, after="start")),
    ):
        with pytest.raises(NotFound):
            call(id)
    with pytest.raises(NotFound):
        client.get("no/id")
    client.create(id=id)
    events = client.watch(id)
    next(events)
    _delete(id, where, server)
    with pytest.raises(Gone):
        list(events)


def _delete(id: str, where: Settings, server: object) -> None:
    import httpx

    httpx.delete(f"{server.url}/v1/operations/{id}?force=true", timeout=DEADLINE_S).raise_for_status()  # type: ignore[attr-defined]


def test_bad_arguments_are_rejected_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidInput, match="'Log' is not an event type"):
            next(client.watch("a", types=["Log"]))
        with pytest.raises(InvalidInput, match="not a valid position"):
            next(client.watch("a", after="yesterday"))
        with pytest.raises(InvalidInput, match="'done' is not a status: use one of pending, "):
            next(client.list(status="done"))
        with pytest.raises(InvalidInput, match="cancel"):
            client.signal("a", "cancel")
        with pytest.raises(InvalidInput, match="data can't be encoded as JSON"):
            client.signal("a", "pause", object())
        for number in (float("inf"), float("nan"), 2**64):
            with pytest.raises(InvalidInput, match="to search by is a number, true, false or text"):
                next(client.list(metadata={"size": number}))
    with pytest.raises(SetupError, match="are both set: remove"):
        Client("http://127.0.0.1:1", redis_url="redis://127.0.0.1:1")


async def test_coroutines_follow_many_at_once(aclient: AsyncClient, id: str) -> None:
    names = [f"{id}-{i}" for i in range(20)]
    for name in names:
        await aclient.create(id=name)

    async def follow(name: str) -> list[str]:
        return [type(event).__name__ async for event in aclient.watch(name)]

    following = [asyncio.create_task(follow(name)) for name in names]
    for name in names:
        await aclient.publish(name, "end", {"status": "succeeded"})
    for told in await asyncio.gather(*following):
        assert told in (["Snapshot", "End"], ["Snapshot", "StatusChange", "End"])
    assert (await aclient.wait(names[0], 60)).done
    assert sorted([it.id async for it in aclient.list(status="succeeded") if it.id in names]) == sorted(names)


def test_a_forked_process_uses_the_client_of_its_parent(client: Client, id: str) -> None:
    client.create(id=id)
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if client.get(id).id == id else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.get(id).id == id


def test_a_closed_client_ends_its_iterators(client: Client, id: str, caplog: pytest.LogCaptureFixture) -> None:
    client.create(id=id)
    events = client.watch(id)
    next(events)
    client.close()
    with pytest.raises(RuntimeError, match="the client was closed"):
        next(events)
    assert client.get(id).id == id  # it connects again
    assert not caplog.records  # nothing tried to reach what was closed


async def test_a_closed_client_of_coroutines_ends_its_iterators(aclient: AsyncClient, id: str) -> None:
    await aclient.create(id=id)
    events = aclient.watch(id)
    await anext(events)
    following = asyncio.create_task(anext(events))
    await aclient.close()
    with pytest.raises(RuntimeError, match="the client was closed"):
        await asyncio.wait_for(following, DEADLINE_S)


def test_the_functions_use_the_environment(where: Settings, id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import progress_client

    if where.url is not None:
        monkeypatch.setenv("PROGRESS_URL", where.url)
    if where.redis_url is not None:
        monkeypatch.setenv("PROGRESS_REDIS_URL", where.redis_url.get_secret_value())
    with Client(settings=where) as other:
        run(other, id)
    assert progress_client.get(id).done
    assert progress_client.wait(id, 60).id == id
    assert [it.id for it in progress_client.list_operations(tag="eu") if it.id == id] == [id]
    assert [type(it) for it in progress_client.watch(id)] == [Snapshot, End]
    progress_client.shared.client().close()


def test_an_address_given_in_code_replaces_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGRESS_REDIS_URL", "redis://127.0.0.1:1")
    with Client("http://127.0.0.1:1") as client:
        assert (client.settings.url, client.settings.redis_url) == ("http://127.0.0.1:1", None)
    monkeypatch.setenv("PROGRESS_URL", "http://127.0.0.1:2")
    with pytest.raises(SetupError):
        Client()
    with Client(redis_url="redis://127.0.0.1:3") as client:
        assert client.settings.url is None
    monkeypatch.setenv("PROGRESS_URL", "")
    with Client() as client:
        assert client.settings.url is None


def test_what_was_written_past_the_checks_is_still_an_event() -> None:
    envelope = b'{"operation":"a","n":3,"type":"%b","time":1,"data":%b}'
    for kind, data in ((b"progress", b"[]"), (b"status", b'{"status":"odd"}'), (b"malformed", b'{"reason":"no"}')):
        event = typed.read_event(envelope % (kind, data), "1-0")
        assert isinstance(event, Custom)
        assert (event.type, event.position) == (kind.decode(), "1-0")
    odd = typed.read_event(envelope % (b"progress", b'{"current":"many","percent":-1,"message":[]}'), "1-0")
    assert isinstance(odd, Progress)
    assert (odd.current, odd.percent, odd.message) == (None, None, None)
    assert make_settings(url="https://a/b/").url == "https://a/b"
