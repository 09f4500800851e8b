"""Starts or joins an operation: one or two calls to the broker, before any background thread is needed."""

import re
import time
from collections.abc import Callable
from typing import Any

from progress_broker.errors import InvalidInput, NotFound, OperationEnded
from progress_broker.model.operation import OPERATION_ID, Status
from progress_broker.operations.worker_view import WorkerView
from progress_broker.settings import Settings, load_settings
from progress_workers.core.reporter import INTERVAL_S, Reporter
from progress_workers.errors import CancelInfo, Cancelled
from progress_workers.lifecycle.create import create
from progress_workers.lifecycle.handle import Handle
from progress_workers.lifecycle.takeover import begin_attempt, worker_name
from progress_workers.tracing import NoTrace, begin
from progress_workers.transport.link import Link
from progress_workers.transport.registry import link_to
from progress_workers.values import brief, number


def start(
    kind: str,
    *,
    total: float | None = None,
    unit: str | None = None,
    settings: Settings | None = None,
    new_attempt: bool = False,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    **fields: Any,
) -> Handle:
    """Create an operation, or find it if it already exists with the same values, and mark it as running."""
    settings = settings or load_settings()
    new_attempt = bool(new_attempt)  # an invalid option must fail before anything is created
    plain_total, plain_interval_s, warnings = _numbers(total, interval_s)
    created = create(kind, settings=settings, **fields)
    link, operation, reply = created.link, created.operation, created.reply
    if reply.cancel is not None:
        raise Cancelled(operation, reply.cancel.reason, reply.cancel.by)
    new = WorkerView(
        lease_s=created.lease_s,
        created_ms=reply.created_ms,
        idle_timeout_s=reply.idle_timeout_s,
        metadata=created.metadata,
        parent=created.parent,
    )
    state = new if reply.new else link.carrier.view(operation)
    if new_attempt:
        state = begin_attempt(link, operation, state, worker)
    trace = begin(operation, created.kind, state.traceparent)

    def reporter(state: WorkerView) -> Reporter:
        reporter = _reporter(
            link, settings, operation, state, trace, worker, plain_interval_s, total=plain_total, unit=unit
        )
        reporter.progress.resume(
            state.progress, state.counts, percent_only=True
        )  # counting restarts, but the percentage continues
        return reporter

    try:
        opened = Handle(link, _announced(link, operation, state, reporter, trace), settings, True)
    except OperationEnded:
        if reply.new and link.carrier.view(operation).status is Status.CANCELLED:
            raise Cancelled(operation) from None  # cancelled after its creation, most likely together with its parent
        raise
    for subject, said in (*created.warnings, *warnings):
        opened.reporter.complaints.add(subject, said)
    return opened


def attach(
    operation: str,
    *,
    settings: Settings | None = None,
    new_attempt: bool = False,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    end_on_exit: bool = True,
) -> Handle:
    """Join an existing operation and continue from its progress."""
    if type(operation) is not str or re.fullmatch(OPERATION_ID, operation) is None:
        raise NotFound(f"the operation {brief(operation)} does not exist, because its id is not valid")
    _, plain_interval_s, warnings = _numbers(None, interval_s)
    settings = settings or load_settings()
    link = link_to(settings)

    def reporter(state: WorkerView) -> Reporter:
        reporter = _reporter(link, settings, operation, state, trace, worker, plain_interval_s, end_on_exit=end_on_exit)
        reporter.progress.resume(state.progress, state.counts, joins=not end_on_exit)
        return reporter

    state = link.carrier.view(operation)
    if new_attempt:
        state = begin_attempt(link, operation, state, worker)
    trace = begin(operation, traceparent=state.traceparent)
    opened = Handle(link, _announced(link, operation, state, reporter, trace), settings, end_on_exit)
    for subject, said in warnings:
        opened.reporter.complaints.add(subject, said)
    return opened


def _numbers(total: object, interval_s: object) -> tuple[float | None, float, list[tuple[str, str]]]:
    """Return a valid total and interval, and warnings about invalid ones, by name."""
    warnings: list[tuple[str, str]] = []
    of = number(total)
    if total is not None and of is None:
        warnings.append(("total", f"the total {brief(total)} was ignored; expected a finite number"))
    every_s = number(interval_s)
    if every_s is None or every_s < 0:
        warnings.append(
            (
                "interval_s",
                f"the interval_s {brief(interval_s)} was ignored; expected a number of seconds, 0 or greater",
            )
        )
        every_s = INTERVAL_S
    return of, every_s, warnings


def _reporter(
    link: Link,
    settings: Settings,
    operation: str,
    state: WorkerView,
    trace: NoTrace,
    worker: str | None,
    interval_s: float,
    *,
    total: float | None = None,
    unit: str | None = None,
    end_on_exit: bool = True,
) -> Reporter:
    if state.status.done:
        raise OperationEnded(
            f"operation {operation} is already {state.status}, and an end is final:"
            " to start new work, choose another id, or leave `id` out to get a new one"
        )
    reporter = Reporter(
        operation,
        settings,
        total=total,
        unit=unit,
        attempt=state.attempt,
        created_ms=state.created_ms,
        worker=worker_name(worker) if end_on_exit or worker else "",
        publish_running=state.status in (Status.PENDING, Status.STALLED),
        # If several processes share an operation, only the one that ends it keeps its lease.
        lease_s=state.lease_s if end_on_exit else None,
        idle_timeout_s=state.idle_timeout_s,
        interval_s=interval_s,
        wake=link.wake,
        trace=trace,
        elapsed_ms=0 if state.started_ms is None else max(0, time.time_ns() // 1_000_000 - state.started_ms),
        parent=state.parent,
    )
    reporter.outbox.metadata.known = state.metadata
    if state.cancel is not None:
        reporter.cancellation.request(CancelInfo(state.cancel.reason, state.cancel.by))
    return reporter


def _announced(
    link: Link, operation: str, state: WorkerView, make: Callable[[WorkerView], Reporter], trace: NoTrace
) -> Reporter:
    try:
        reporter = _first_sent(link, operation, make(state), make)
    except BaseException:
        trace.end(None)
        raise
    link.follow(reporter)
    return reporter


def _first_sent(link: Link, operation: str, reporter: Reporter, make: Callable[[WorkerView], Reporter]) -> Reporter:
    try:
        _send_first(link, reporter)
    except (InvalidInput, OperationEnded):
        # It changed since it was read. If it was cancelled, Redis rejects `running`; the worker must see the cancel.
        reporter = make(link.carrier.view(operation))
        _send_first(link, reporter)
    return reporter


def _send_first(link: Link, reporter: Reporter) -> None:
    batch = reporter.batch(time.monotonic())
    if batch is not None:
        reporter.acknowledged(link.publish(batch))
