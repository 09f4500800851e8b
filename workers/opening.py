"""How an operation is begun or joined: a call or two to Redis, before anything runs in the background."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from broker.errors import (
    Invalid,
    OperationEnded,
)
from broker.models import Status
from broker.publishing import read_answer
from broker.settings import Settings, load_settings
from workers.attempts import begin_attempt, worker_name
from workers.creating import create
from workers.errors import Cancelled, Stop
from workers.link import Link, link_to
from workers.reporter import INTERVAL_S, Reporter
from workers.standing import State, read_state
from workers.tracing import NoTrace, begin


class Opened(NamedTuple):
    """An operation that can be reported on."""

    link: Link
    reporter: Reporter
    settings: Settings
    ends: bool


def start(
    kind: str,
    *,
    total: float | None = None,
    unit: str | None = None,
    settings: Settings | None = None,
    new_attempt: bool = False,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    **words: Any,
) -> Opened:
    """Create an operation, or find it if it was created alike before, and say that it runs."""
    settings = settings or load_settings()
    created = create(kind, settings=settings, **words)
    link, operation = created.link, created.operation
    if created.cancel is not None:
        raise Cancelled(operation, created.cancel.reason, created.cancel.by)
    new = State(lease_s=created.lease_s, created_ms=created.at_ms)
    state = new if created.new else read_state(link, operation)
    if new_attempt:
        state = begin_attempt(link, operation, state, worker)
    trace = begin(operation, kind, state.traceparent)

    def reporter(state: State) -> Reporter:
        reporter = _reporter(link, settings, operation, state, trace, worker, interval_s, total=total, unit=unit)
        reporter.progress.resume(state.progress, percent_only=True)  # its loop begins again, its percentage does not
        return reporter

    try:
        return Opened(link, _announced(link, operation, state, reporter, trace), settings, True)
    except OperationEnded:
        if created.new and read_state(link, operation).status is Status.CANCELLED:
            raise Cancelled(operation) from None  # between its creation and now, most likely with its parent
        raise


def attach(
    operation: str,
    *,
    settings: Settings | None = None,
    new_attempt: bool = False,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    ends: bool = True,
) -> Opened:
    """Join an operation that exists, and go on from the progress it has."""
    settings = settings or load_settings()
    link = link_to(settings)

    def reporter(state: State) -> Reporter:
        reporter = _reporter(link, settings, operation, state, trace, worker, interval_s, ends=ends)
        reporter.progress.resume(state.progress)
        return reporter

    state = read_state(link, operation)
    if new_attempt:
        state = begin_attempt(link, operation, state, worker)
    trace = begin(operation, traceparent=state.traceparent)
    return Opened(link, _announced(link, operation, state, reporter, trace), settings, ends)


def _reporter(
    link: Link,
    settings: Settings,
    operation: str,
    state: State,
    trace: NoTrace,
    worker: str | None,
    interval_s: float,
    *,
    total: float | None = None,
    unit: str | None = None,
    ends: bool = True,
) -> Reporter:
    if state.status.done:
        raise OperationEnded(f"operation {operation} has {state.status} already: choose another id")
    reporter = Reporter(
        operation,
        link.keyspace().operation(operation),
        settings,
        total=total,
        unit=unit,
        attempt=state.attempt,
        created_ms=state.created_ms,
        worker=worker_name(worker) if ends or worker else "",
        announce=state.status in (Status.PENDING, Status.STALLED),
        # Of several processes on an operation the one that ends it keeps its lease.
        lease_s=state.lease_s if ends else None,
        idle_limit_s=state.idle_limit_s,
        interval_s=interval_s,
        wake=link.wake,
        trace=trace,
    )
    if state.cancel is not None:
        reporter.sign.ask(Stop(state.cancel.reason, state.cancel.by))
    return reporter


def _announced(link: Link, operation: str, state: State, make: Callable[[State], Reporter], trace: NoTrace) -> Reporter:
    try:
        reporter = _first_sent(link, operation, make(state), make)
    except BaseException:
        trace.end(None)
        raise
    link.follow(reporter)
    return reporter


def _first_sent(link: Link, operation: str, reporter: Reporter, make: Callable[[State], Reporter]) -> Reporter:
    try:
        _send_first(link, reporter)
    except (Invalid, OperationEnded):
        # It changed since it was looked at. If it was cancelled, `running` can't follow, but the worker has to hear.
        reporter = make(read_state(link, operation))
        _send_first(link, reporter)
    return reporter


def _send_first(link: Link, reporter: Reporter) -> None:
    call = reporter.call(time.monotonic())
    if call is not None:
        reporter.acknowledged(read_answer(link.run(call)))
