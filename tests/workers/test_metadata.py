"""Metadata from workers: given at the start, changed while the work runs, and never the reason why work fails."""

from typing import Any

import pytest

from progress_workers import Operation
from progress_workers.null import NULL_OPERATION
from tests.servers import wait_until
from tests.workers.conftest import Run
from tests.workers.harness import Broker

LATER_S = 60.0


def test_changes_are_shown_and_are_events(run: Run, broker: Broker) -> None:
    def work(op: Any) -> None:
        assert op.metadata == {"customer": 42, "phase": "queued"}
        op.update(metadata={"phase": "loading", "file": "a.csv"})
        op.update(metadata={"phase": "storing", "customer": None})
        assert op.metadata == {"phase": "storing", "file": "a.csv"}

    given = {"metadata": {"customer": 42, "phase": "queued"}, "interval_s": LATER_S}
    run(work, "import", id="a", settings=broker.settings, **given)
    assert broker.show("a").metadata == {"phase": "storing", "file": "a.csv"}
    # Changes that wait together are one event, and say nothing about the progress.
    assert broker.data("a", "metadata") == [{"phase": "storing", "file": "a.csv", "customer": None}]
    assert broker.data("a", "progress") == []


def test_who_joins_knows_the_metadata_there_is(broker: Broker) -> None:
    with Operation.start("import", id="a", metadata={"a": 1}, settings=broker.settings) as op:
        op.update(metadata={"b": 2})
        assert op.flush()
        with Operation.attach("a", end_on_exit=False, settings=broker.settings) as joined:
            assert joined.metadata == {"a": 1, "b": 2}
            joined.update(metadata={"a": None})
        op.update(metadata={"c": 3})
    assert broker.show("a").metadata == {"b": 2, "c": 3}


@pytest.mark.parametrize("given", ["text", 7, [1], {"x": "y" * 20_000}, object()])
def test_metadata_that_is_none_is_left_out_and_told(broker: Broker, given: Any) -> None:
    with Operation.start("import", id="a", metadata=given, settings=broker.settings) as op:
        op.update(metadata={"kept": 1})
        op.update(metadata=given)
    assert broker.show("a").metadata == {"kept": 1}
    assert any("metadata" in line for line in broker.logged("a"))


@pytest.mark.parametrize("given", [None, {}])
def test_no_metadata_is_none(broker: Broker, given: Any) -> None:
    with Operation.start("import", id="a", metadata=given, settings=broker.settings) as op:
        op.update(metadata=given)
    assert broker.show("a").metadata == {}
    assert broker.logged("a") == []


def test_values_that_are_not_json_are_shown_as_text(broker: Broker) -> None:
    with Operation.start("import", id="a", metadata={1: {2}, "none": None}, settings=broker.settings) as op:
        op.update(metadata={"large": 2**70, "nan": float("nan")})
    assert broker.show("a").metadata == {"1": [2], "large": str(2**70), "nan": "NaN"}


def test_what_only_redis_knows_to_be_too_large_is_left_out_and_the_rest_is_stored(broker: Broker) -> None:
    with Operation.start("import", id="a", settings=broker.settings, interval_s=LATER_S) as op:
        with Operation.attach("a", end_on_exit=False, settings=broker.settings) as other:
            other.update(metadata={"theirs": "x" * 9_000})
        op.update(metadata={"ours": "y" * 9_000})
        op.log("hello")
        op.advance(3)
    shown = broker.show("a")
    assert (set(shown.metadata), shown.status, (shown.progress or {})["current"]) == ({"theirs"}, "succeeded", 3)
    assert "hello" in broker.logged("a")


def test_many_changes_take_no_room_while_nothing_can_be_sent(broker: Broker) -> None:
    with Operation.start("import", id="a", settings=broker.settings, interval_s=LATER_S) as op:
        for number in range(20_000):
            op.update(metadata={"number": number})
        assert op._reporter.unsent() <= 2
        op.log("x")
        wait_until(lambda: op.flush(), "all is stored")
    assert broker.show("a").metadata == {"number": 19_999}


def test_the_null_operation_has_none() -> None:
    NULL_OPERATION.update(metadata={"a": 1})
    assert NULL_OPERATION.metadata == {}
