"""Celery's groups, chains and chords, and its own states, with a real worker."""

import logging
from typing import Any

import pytest

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import Status
from tests.queues.waiting import at_work, ended, until
from tests.workers.harness import Broker

pytestmark = pytest.mark.parametrize("queue", ["celery"], indirect=True)


def apply(queue: Any, canvas: Any, **options: Any) -> tuple[str, Any]:
    """Apply a canvas with an operation of its own; return its id, and Celery's result."""
    from progress_workers.queues.celery import with_parent

    reported, id = with_parent(canvas, **options)
    return id, reported.apply_async()


def test_the_states_of_a_task_are_its_progress_and_celery_has_them_too(queue: Any, broker: Broker) -> None:
    shown = ended(queue, broker, queue.enqueue("tells_states"))
    progress = shown.progress or {}
    assert (progress["current"], progress["total"], progress["message"]) == (3, 4, "reading")
    assert progress["metrics"]["rows_bad"] == 2
    assert (shown.status, shown.result) == (Status.SUCCEEDED, ["PROGRESS", True])


def test_each_canvas_is_an_operation_whose_tasks_are_its_children(queue: Any, broker: Broker) -> None:
    from celery import chain, chord, group

    app = queue.app
    canvases = {
        "group": (group(app.count.s(rows) for rows in (1, 2, 3)), 3, None),
        "chain": (chain(app.count.s(1), app.replaced.si(), app.passes.s()), 3, 3),
        "chord": (chord([app.count.s(1), app.count.s(2)], app.passes.s()), 3, 3),
        "nested": (chain(app.count.s(1), group(app.passes.s(), app.passes.s()), app.passes.s()), 4, 4),
    }
    applied = {name: apply(queue, canvas, title=name, metadata={"x": 1}) for name, (canvas, *_) in canvases.items()}
    for name, (_, tasks, total) in canvases.items():
        operation, result = applied[name]
        shown = ended(queue, broker, operation)
        assert (shown.status, shown.title, shown.result) == (Status.SUCCEEDED, name, None), name
        assert shown.metadata["x"] == 1
        assert shown.metadata["celery"]["tasks"] == tasks
        progress = shown.progress or {}
        assert (progress["current"], progress["total"], progress["percent"]) == (tasks, total, 100.0), name
        assert len(broker.children(operation)) == tasks, name
        for child in broker.children(operation):
            assert broker.show(child).status is Status.SUCCEEDED
        assert result.get(timeout=30) is not None
    assert broker.show(applied["chain"][0]).kind == "celery.chain"


@pytest.mark.parametrize("shape", ["group", "chain", "chord", "lost"])
def test_the_first_task_that_fails_ends_it_and_is_named(queue: Any, broker: Broker, shape: str) -> None:
    from celery import chain, chord, group

    app = queue.app
    canvas = {
        "group": group(app.count.s(1), app.breaks.s()),
        "chain": chain(app.count.s(1), app.breaks.si(), app.passes.s()),
        "chord": chord([app.count.s(1), app.breaks.s()], app.passes.s()),
        "lost": group(app.lost.s()),
    }[shape]
    operation, _ = apply(queue, canvas)
    shown = ended(queue, broker, operation)
    error = shown.error or {}
    assert (shown.status, error["type"]) == (Status.FAILED, "worker-lost" if shape == "lost" else "ValueError")
    assert broker.show(error["operation"]).status is Status.FAILED
    assert error["operation"] in broker.children(operation)


def test_a_task_that_is_replaced_ends_with_its_replacement_whose_tasks_are_its_children(
    queue: Any, broker: Broker
) -> None:
    two = {"counted": 2}
    results = {
        "group": (2, [{"counted": 1}, two]),
        "chain": (2, two),
        "chord": (2, "passed"),
        "nested": (3, [two, two]),
    }
    operations = {shape: queue.enqueue("replaced_by", shape) for shape in results}
    for shape, (children, result) in results.items():
        shown = ended(queue, broker, operations[shape])
        assert (shown.status, shown.result, shown.attempt) == (Status.SUCCEEDED, result, 2), shape
        assert len(broker.children(shown.id)) == children, shape
        for child in broker.children(shown.id):
            assert broker.show(child).status is Status.SUCCEEDED
        assert queue.app.app.AsyncResult(shown.id).get(timeout=30) == result
    shown = ended(queue, broker, queue.enqueue("replaced_by", "unreported"))
    assert (shown.status, shown.result) == (Status.SUCCEEDED, None)


def test_a_canvas_goes_on_with_what_replaces_one_of_its_tasks(queue: Any, broker: Broker) -> None:
    from celery import chain, group

    app = queue.app
    operation, _ = apply(queue, chain(app.replaced_by.si("nested"), app.passes.s()))
    shown = ended(queue, broker, operation)
    assert (shown.status, (shown.progress or {})["current"]) == (Status.SUCCEEDED, 2)
    assert len(broker.children(operation)) == 2
    operation, _ = apply(queue, group(app.replaced_by.si("failing"), app.waits.s()))
    shown = ended(queue, broker, operation)
    assert (shown.status, (shown.error or {})["message"]) == (Status.FAILED, "bad row 7")
    replaced = broker.show((shown.error or {})["operation"])
    assert (replaced.status, replaced.parent) == (Status.FAILED, operation)
    assert broker.show((replaced.error or {})["operation"]).parent == replaced.id
    broker.cancel(next(child for child in broker.children(operation) if child != replaced.id))


def cancels_its_child(queue: Any, broker: Broker, operation: str) -> None:
    """Cancel an operation while its only child works, and check that both end so."""
    until(queue, broker, operation, lambda: broker.children(operation), "has a child")
    (child,) = broker.children(operation)
    at_work(queue, broker, child)
    broker.cancel(operation, "enough")
    for each in (child, operation):
        shown = ended(queue, broker, each)
        assert (shown.status, (shown.error or {})["message"]) == (Status.CANCELLED, "enough")


def test_to_cancel_a_task_that_was_replaced_cancels_its_replacement(queue: Any, broker: Broker) -> None:
    operation = queue.enqueue("replaced_by", "waiting")
    cancels_its_child(queue, broker, operation)


def test_a_retry_goes_on_within_it(queue: Any, broker: Broker) -> None:
    from celery import chain

    operation, _ = apply(queue, chain(queue.app.flaky.s(), queue.app.passes.s()))
    assert ended(queue, broker, operation).status is Status.SUCCEEDED
    assert sorted(broker.show(child).attempt for child in broker.children(operation)) == [1, 2]


def test_to_cancel_it_cancels_its_tasks_and_to_cancel_one_ends_it(queue: Any, broker: Broker) -> None:
    from celery import chain

    operation, _ = apply(queue, chain(queue.app.waits.s(), queue.app.passes.si()))
    cancels_its_child(queue, broker, operation)
    operation, _ = apply(queue, chain(queue.app.waits.s(), queue.app.passes.si()))
    until(queue, broker, operation, lambda: broker.children(operation), "has a child")
    (child,) = broker.children(operation)
    at_work(queue, broker, child)
    broker.cancel(child, "not this one")
    assert ended(queue, broker, operation).status is Status.CANCELLED
    assert len(broker.children(operation)) == 1


def test_one_without_tasks_has_ended(queue: Any, broker: Broker) -> None:
    from celery import group

    operation, _ = apply(queue, group([]))
    assert broker.show(operation).status is Status.SUCCEEDED


def test_it_is_applied_whether_its_operation_can_be_created_or_not(
    queue: Any, broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from celery import group

    with pytest.raises(InvalidInput):
        apply(queue, group(queue.app.passes.s()), id="not valid")
    with pytest.raises(InvalidInput, match="unreported is not reported"):
        apply(queue, group(queue.app.passes.s(), queue.app.unreported.s()))
    queue.report_to(queue.nowhere(), monkeypatch)
    with caplog.at_level(logging.WARNING):
        _, result = apply(queue, group(queue.app.passes.s()))
    assert result.get(timeout=60) == ["passed"]
    assert "progress could not be sent to" in caplog.text
