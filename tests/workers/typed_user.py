"""Code of a user who uses types. mypy and pyright check it in their strictest modes; it never runs."""

import logging
from collections.abc import AsyncIterator
from typing import assert_type

from progress_broker.settings import Settings
from progress_workers import (
    AsyncOperation,
    BrokerError,
    Cancelled,
    Fenced,
    InvalidInput,
    LogHandler,
    Operation,
    Pool,
    PoolWorker,
    Signal,
    current,
    flush,
    run_process,
    run_process_async,
    track,
    tracked,
)


def plain(rows: list[str]) -> int:
    with Operation.start("import", id="import-42", total=len(rows), unit="rows", tags=["eu"], lease_s=None) as op:
        assert_type(op, Operation)
        for row in op.track(rows):
            assert_type(row, str)
            op.advance(0.5)
        with op.stage("parse", weight=2, total=10) as stage:
            for row in stage.track(rows):
                assert_type(row, str)
            stage.update(current=3, in_flight=4)
        with op.child("part", weight=3) as child:
            assert_type(child, Operation)
        assert_type(op.wrap(len)(rows), int)
        assert_type(op.activate(), Operation)
        op.deactivate()
        assert_type(run_process(["true"], timeout=5, echo=True), int)
        for signal in op.signals(timeout=0):
            assert_type(signal, Signal)
        op.update(metrics={"pages": 12}, workers={"active": 3, "max": 8}, message="reading", custom=1)
        op.update(workers=Pool(active=1, workers=[PoolWorker(id="a", status="processing", percent=10.0)]))
        op.update(metadata={"customer": 42, "file": None})
        assert_type(op.elapsed_ms, int)
        for row in op.track(iter(rows), total=len(rows), description="rows", raise_on_cancel=True):
            assert_type(row, str)
        op.increment("rows_bad", by=2)
        op.cancel("no rows")
        op.skip(2)
        op.publish("thumbnail", {"url": "/1.png"})
        forget = op.on_cancel(lambda error: print(error))
        forget()
        assert_type(op.cancelled, bool)
        assert_type(op.flush(timeout=1), bool)
        try:
            op.raise_if_cancelled()
        except Cancelled as error:
            assert_type(error.reason, str | None)
        except InvalidInput as error:
            assert_type(error.field, str | None)
        op.succeed({"imported": 1})
    assert_type(Operation.create("later", metadata={"customer": 42}), str)
    return len(rows)


async def asynchronous(rows: AsyncIterator[bytes]) -> None:
    async with AsyncOperation.start("import", total=3, required=True) as op:
        assert_type(op, AsyncOperation)
        assert_type(await run_process_async(["true"], operation=op, check=True), int)
        async for row in op.track(rows, total=3, raise_on_cancel=True):
            assert_type(row, bytes)
        for letter in op.track("abc"):
            assert_type(letter, str)
        async with op.child("part") as child:
            assert_type(child, AsyncOperation)
        async for signal in op.signals():
            assert_type(signal, Signal)
        assert_type(await op.flush(), bool)
    assert_type(await AsyncOperation.attach("import-42", new_attempt=True, end_on_exit=False), AsyncOperation)
    assert_type(await AsyncOperation.create("later"), str)


def every_option(settings: Settings) -> None:
    parent = Operation.create(
        "nightly", id="nightly-1", owner="ann", retention_s=60, history_length=50, settings=settings
    )
    with Operation.start(
        "import",
        parent=parent,
        title="Import of May",
        tags=("eu",),
        metadata={"customer": 42},
        weight=2,
        lease_s=None,
        worker="host:1",
        interval_s=0.5,
        new_attempt=True,
        required=False,
    ) as op:
        assert_type(repr(op), str)
        with op.child("part", total=3, unit="rows", owner="ann") as part:
            part.advance()
    with Operation.attach(parent, settings=settings, worker="host:2", interval_s=1, required=True) as joined:
        assert_type(joined, Operation)


def errors(op: Operation) -> str:
    try:
        op.raise_if_cancelled()
    except (Cancelled, Fenced) as error:
        return str(error)
    except BrokerError as error:
        assert_type(error.detail, str)
        assert_type(error.retry_s, float | None)
    return ""


def library(items: list[int]) -> None:
    for item in track(items):
        assert_type(item, int)
    current().log("done", level="debug")
    assert_type(flush(), bool)
    logging.getLogger().addHandler(LogHandler())


@tracked
def squared(number: int) -> int:
    return number * number


@tracked(kind="fetch", title="Fetch {url}")
async def fetched(url: str, *, tries: int = 3) -> bytes:
    return url.encode() * tries


async def decorated() -> None:
    assert_type(squared(3), int)
    assert_type(await fetched("x", tries=1), bytes)
