"""Unusual results of tasks: the queue reports the same as without the SDK, and the operation succeeds."""

import re
from typing import Any

from progress_broker.model.operation import Status
from tests.queues.waiting import ended, until
from tests.workers.harness import Broker

RETURNED = (
    "bytes",
    "surrogates",
    "numpy-int",
    "numpy-array",
    "nan",
    "66-bits",
    "decimal",
    "set",
    "odd-keys",
    "cycle",
    "object",
    "unreadable",
    "bad-str",
    "long",
)


def test_a_task_s_outcome_is_what_it_is_without_us(queue: Any, broker: Broker) -> None:
    said: dict[str, list[Any]] = {}
    tasks = {name: (queue.enqueue("returns", name), queue.enqueue("returns_unreported", name)) for name in RETURNED}
    for name, both in tasks.items():
        assert ended(queue, broker, both[0]).status is Status.SUCCEEDED, name
        for task in both:
            until(queue, broker, task, lambda task=task: queue.outcome(task), "has an outcome")  # type: ignore[misc]
            said.setdefault(name, []).append(re.sub(r"0x[0-9a-f]+", "0x", str(queue.outcome(task))))
    assert {name: first for name, (first, _) in said.items()} == {name: second for name, (_, second) in said.items()}
    assert ended(queue, broker, queue.enqueue("count", 1)).status is Status.SUCCEEDED
