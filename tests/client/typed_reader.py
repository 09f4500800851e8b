"""Code of a user who reads with types. mypy and pyright check it in their strictest modes; it never runs."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, assert_never, assert_type

from progress_client import (
    AsyncClient,
    BrokerError,
    Child,
    Client,
    Custom,
    End,
    Event,
    Log,
    MetadataChange,
    NotFound,
    Operation,
    Progress,
    Reset,
    ServerUnavailable,
    Snapshot,
    Status,
    StatusChange,
    Unauthenticated,
    cancel,
    get,
    list_operations,
    signal,
    wait,
    watch,
)


def shown(event: Event) -> str:
    assert_type(event.at, datetime)
    assert_type(event.n, int)
    match event:
        case Snapshot(state=state) | Reset(state=state):
            assert_type(state, Operation)
            return repr(state)
        case Progress(percent=percent, message=message):
            assert_type(percent, float | None)
            return message or ""
        case Log(message=message, level="error"):
            return message
        case Log():
            return event.level
        case MetadataChange(changes=changes):
            assert_type(changes, dict[str, Any])
            return ", ".join(changes)
        case StatusChange(status=status):
            assert_type(status, Status)
            return status.value
        case Child(child=child):
            return child
        case End(status=Status.SUCCEEDED, result=result):
            return str(result)
        case End(error=error):
            assert_type(error, dict[str, Any] | None)
            return "failed"
        case Custom(type=name):
            return name
        case _:
            assert_never(event)


def plain() -> float | None:
    for event in watch("import-42", after="start", types=["progress"]):
        print(shown(event))
    assert_type(watch("import-42"), Iterator[Event])
    failed = [operation.id for operation in list_operations(status=[Status.FAILED, "cancelled"], tag="eu")]
    assert_type(failed, list[str])
    assert_type(cancel("import-42", "too slow", force=True), Operation)
    signal("import-42", "pause", {"for": 3})
    with Client("https://example.com/progress", token="pbk_key", patience_s=None) as client:
        assert_type(client.get("import-42", list_children=True), Operation)
        assert_type(client.publish("import-42", "log", {"message": "hi"}).events, int)
        for operation in client.list(owner="ann"):
            assert_type(operation, Operation)
    try:
        return wait("import-42", timeout=5).percent
    except (TimeoutError, NotFound):
        return get("import-42").total


async def coroutine() -> None:
    async with AsyncClient(redis_url="redis://localhost") as client:
        async for event in client.watch("import-42"):
            print(shown(event))
        async for operation in client.list(kind="import"):
            assert_type(operation.current, float | None)
        assert_type(await client.wait("import-42", 5), Operation)
        assert_type(await client.get("import-42", list_children=True), Operation)
        assert_type(await client.cancel("import-42", "too slow", by="ann"), Operation)
        await client.signal("import-42", "pause", {"for": 3})
        assert_type(await client.create("import", id="import-43", owner="ann"), Operation)
        assert_type((await client.publish("import-43", "end", {"status": "succeeded"})).position, str)
        assert_type(await client.now(), datetime)
        events = client.watch("import-42", after="start", types={"log"})
        assert_type(await anext(events), Event)
        await events.aclose()
    try:
        await client.get("import-42")
    except (ServerUnavailable, Unauthenticated) as error:
        assert_type(error.detail, str)
    except BrokerError as error:
        assert_type(error.field, str | None)
