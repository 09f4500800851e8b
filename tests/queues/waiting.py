"""Waits for workers, and shows their output if the wait fails."""

from collections.abc import Callable
from typing import Any

from progress_broker.model.operation import Operation
from tests.servers import wait_until
from tests.workers.harness import Broker, assert_whole


def until(queue: Any, broker: Broker, operation: str, condition: Callable[[], object], what: str) -> None:
    try:
        wait_until(condition, f"{operation} {what}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{broker.events(operation)}\n{queue.output()[-6000:]}") from None


def ended(queue: Any, broker: Broker, operation: str) -> Operation:
    """Wait for an operation's end, and return its snapshot."""
    until(queue, broker, operation, lambda: broker.data(operation, "end"), "ends")
    (_,) = broker.data(operation, "end")
    assert_whole(broker.events(operation))
    return broker.show(operation)


def at_work(queue: Any, broker: Broker, operation: str) -> None:
    until(queue, broker, operation, lambda: "at work" in broker.logged(operation), "runs")


def occupy(queue: Any, broker: Broker) -> list[str]:
    """Occupy all slots of the worker with waiting tasks; return their operations."""
    waiting = [queue.enqueue("waits") for _ in range(queue.slots)]
    for each in waiting:
        at_work(queue, broker, each)
    return waiting
