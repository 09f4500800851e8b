"""How operations and stages show themselves, in a notebook, a debugger or a log."""

import asyncio

import pytest

from progress_broker.settings import Settings
from progress_workers import AsyncOperation, Operation, current
from progress_workers.testing import recording


def test_an_operation_shows_its_id_status_and_progress() -> None:
    with recording() as recorded:
        op = Operation.start("import", id="i", total=4, unit="rows")
        op.advance()
        assert repr(op) == str(op) == "<Operation i: running, 25.0 %, 1 of 4 rows>"
        assert repr(op) == repr(recorded.operations["i"].snapshot)
        op.succeed()
        assert repr(op) == "<Operation i: succeeded, 25.0 %, 1 of 4 rows>"


def test_what_is_known_of_an_operation_is_shown_and_to_show_it_changes_nothing() -> None:
    with recording() as recorded:
        op = Operation.start("import", id="i")
        assert repr(op) == "<Operation i: running>"
        parse, store = op.stage("parse", total=10), op.stage("store", weight=3)
        assert (repr(parse), repr(store)) == ("<Stage parse: pending, 0.0 %, 0 of 10>", "<Stage store: pending>")
        with parse:
            parse.advance(5)
            assert repr(parse) == "<Stage parse: running, 50.0 %, 5 of 10>"
        for _ in range(2):
            assert repr(op) == "<Operation i: running, 12.5 %>"
        assert recorded.operations["i"].progress["percent"] == 12.5
        recorded.operations["i"].cancel("enough")
        assert repr(op) == "<Operation i: cancelling, 12.5 %>"
        again = Operation.start("import", id="j")
        again.retry_in(5)
        assert repr(again) == "<Operation j: waiting for its next attempt>"
        taken = Operation.start("import", id="k")
        recorded.operations["k"].fence()
        taken.log("so that it hears of it")
        assert repr(taken) == "<Operation k: no longer reported (fenced)>"


def test_what_is_not_reported_says_so() -> None:
    assert repr(current()) == "<NullOperation: nothing is reported>"
    assert repr(current().stage("parse")) == "<NullStage: nothing is reported>"
    off = Operation.start("import", id="i", total=2, settings=Settings(_env_file=None, disabled=True))
    off.advance()
    assert repr(off) == "<Operation i: not reported, 50.0 %, 1 of 2>"


def test_an_asynchronous_operation_that_is_not_awaited_says_so() -> None:
    async def forgets() -> None:
        op = AsyncOperation.start("import", id="i")
        assert repr(op) == "<PendingOperation: not started yet; await it, or use it in `async with`>"
        with pytest.raises(AttributeError, match="not started yet, so it has no 'advance': `await` it"):
            op.advance()  # type: ignore[attr-defined]
        assert repr(await op) == "<AsyncOperation i: running>"

    with recording():
        asyncio.run(forgets())
