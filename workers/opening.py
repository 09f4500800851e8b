"""How an operation is begun or joined: a call or two to Redis, before anything runs in the background."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, NamedTuple, TypedDict

import orjson
from pydantic import ValidationError

from broker import noting, tracing
from broker.calls import create_call
from broker.connections import storage_errors
from broker.errors import (
    Conflict,
    Gone,
    Invalid,
    NotFound,
    OperationEnded,
    OperationExists,
    StorageUnavailable,
)
from broker.inputs import invalid
from broker.models import Cancel, NewOperation, Status
from broker.publishing import Entry, publish_call, read_answer, read_cancel
from broker.settings import Settings, load_settings
from workers.errors import Cancelled, Stop
from workers.link import Link, link_to
from workers.noting import note
from workers.payloads import cut
from workers.reporter import INTERVAL_S, Reporter
from workers.tracing import NoTrace, begin


class Default(Enum):
    """Stands for what the settings say."""

    LEASE = "PROGRESS_LEASE_S"


class AttachOptions(TypedDict, total=False):
    """What can be said when an operation is joined. Durations are in seconds."""

    settings: Settings | None
    """Which Redis, and the limits; by default from the environment."""
    worker: str | None
    """Who works on it, as people are shown; by default `host:pid`."""
    interval_s: float
    """Progress is sent no more often; 0.1 by default."""
    new_attempt: bool
    """Whether this is a new attempt: the earlier one is fenced, and the count begins anew. Not on a pending one."""
    ends: bool
    """Whether leaving the block ends the operation, the default; False is for one of several processes on it.

    Of these let one count, as each tells the progress as it sees it; or give each a child of its own.
    """


class _Words(TypedDict, total=False):
    id: str | None
    title: str | None
    owner: str | None
    tags: Iterable[str]
    weight: float
    """How much of its parent it is, compared with the other children; 1 by default."""
    lease_s: float | Default | None
    """How long the worker may be silent before it counts as stalled; None for ever; by default as the server says."""


class CreateOptions(_Words, total=False):
    """What can be said when an operation is created. Durations are in seconds."""

    parent: str | None
    settings: Settings | None


class ChildOptions(_Words, total=False):
    """What can be said when a part of an operation is started. Durations are in seconds."""

    total: float | None
    unit: str | None
    new_attempt: bool
    worker: str | None
    interval_s: float


class StartOptions(ChildOptions, total=False):
    """What can be said when an operation is started. Durations are in seconds."""

    parent: str | None
    settings: Settings | None


class Opened(NamedTuple):
    """An operation that can be reported on."""

    link: Link
    reporter: Reporter
    settings: Settings
    ends: bool


class _State(NamedTuple):
    """What an operation in Redis says of itself, as far as a worker must know."""

    status: Status = Status.PENDING
    attempt: int = 1
    lease_s: float | None = None
    progress: dict[str, Any] = {}  # noqa: RUF012 - never written to
    cancel: Cancel | None = None
    created_ms: int | None = None
    idle_limit_s: float | None = None
    traceparent: str = ""


_FIELDS: Final = ("gone", "status", "attempt", "lease_ms", "progress", "cancel", "created", "limits", "traceparent")
_TRIES: Final = 8


def create(kind: str, *, settings: Settings | None = None, **words: Any) -> str:
    """Create an operation, unless it was created alike before, and return its id."""
    return _create(settings or load_settings(), kind, **words).operation


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
    created = _create(settings, kind, **words)
    link, operation = created.link, created.operation
    if created.cancel is not None:
        raise Cancelled(operation, created.cancel.reason, created.cancel.by)
    new = _State(lease_s=created.lease_s, created_ms=created.at_ms)
    state = new if created.new else _read_state(link, operation)
    if new_attempt:
        state = _begin_attempt(link, operation, state, worker)
    trace = begin(operation, kind, state.traceparent)

    def reporter(state: _State) -> Reporter:
        reporter = _reporter(link, settings, operation, state, trace, worker, interval_s, total=total, unit=unit)
        reporter.progress.resume(state.progress, percent_only=True)  # its loop begins again, its percentage does not
        return reporter

    try:
        return Opened(link, _announced(link, operation, state, reporter, trace), settings, True)
    except OperationEnded:
        if created.new and _read_state(link, operation).status is Status.CANCELLED:
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

    def reporter(state: _State) -> Reporter:
        reporter = _reporter(link, settings, operation, state, trace, worker, interval_s, ends=ends)
        reporter.progress.resume(state.progress)
        return reporter

    state = _read_state(link, operation)
    if new_attempt:
        state = _begin_attempt(link, operation, state, worker)
    trace = begin(operation, traceparent=state.traceparent)
    return Opened(link, _announced(link, operation, state, reporter, trace), settings, ends)


class _Created(NamedTuple):
    link: Link
    operation: str
    lease_s: float | None
    new: bool
    at_ms: int | None
    cancel: Cancel | None
    """That of its parent, which it has been ended by."""


def _create(
    settings: Settings,
    kind: str,
    *,
    id: str | None = None,
    tags: Iterable[str] = (),
    lease_s: float | Default | None = Default.LEASE,
    **words: Any,
) -> _Created:
    lease = settings.lease_s if lease_s is Default.LEASE else lease_s
    if unknown := [name for name in words if name not in NewOperation.model_fields]:
        raise TypeError(f"there is no option {unknown[0]!r}: see `Operation.start`")
    if isinstance(tags, str):
        raise Invalid("tags are a list: a single one goes into [ ] too", field="tags")
    given = {"kind": kind, "tags": list(tags), "lease_s": lease, **words}
    try:
        new = NewOperation.model_validate({"id": secrets.token_hex(10) if id is None else id, **given})
    except ValidationError as error:
        raise invalid(error) from None
    link = link_to(settings)
    operation = str(new.id)
    reply = link.run(create_call(operation, link.keyspace().operation(operation), new, settings, tracing.current()))
    try:
        read_answer(reply)
    except OperationExists as error:
        raise OperationExists(f"{error.detail}: start it just as it was, or choose another id") from None
    cancel = note(link, settings, operation, new) if noting.is_due(new, reply) else None
    return _Created(link, operation, new.lease_s, bool(reply[4]), int(reply[5]) if reply[5] else None, cancel)


def _begin_attempt(link: Link, operation: str, state: _State, worker: str | None) -> _State:
    """Take an operation over from whoever works on it, and return how it then stands."""
    for _ in range(_TRIES):
        if state.status.done or state.status is Status.PENDING:
            return state  # what nobody has begun is not begun again
        attempt, name = state.attempt + 1, _name(worker)
        # One that was asked to stop stays so, and whoever takes it over hears of it.
        status = Status.CANCELLING if state.status is Status.CANCELLING else Status.RUNNING
        said = orjson.dumps({"status": status, "attempt": attempt, "worker": name})
        entries = [Entry("status", said, "" if status is Status.CANCELLING else "running")]
        keys = link.keyspace().operation(operation)
        call = publish_call(operation, keys, entries, attempt=attempt, begins=True, worker=name, expect=state.status)
        try:
            read_answer(link.run(call))
        except Conflict:
            state = _read_state(link, operation)  # it changed since it was looked at
        else:
            return state._replace(attempt=attempt, status=status, progress={})
    raise StorageUnavailable(f"operation {operation} changes too fast to be taken over: try again")


def _reporter(
    link: Link,
    settings: Settings,
    operation: str,
    state: _State,
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
        worker=_name(worker) if ends or worker else "",
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


def _name(worker: str | None) -> str:
    return cut(worker or _here(), 128)


def _here() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _announced(
    link: Link, operation: str, state: _State, make: Callable[[_State], Reporter], trace: NoTrace
) -> Reporter:
    try:
        reporter = _first_sent(link, operation, make(state), make)
    except BaseException:
        trace.end(None)
        raise
    link.follow(reporter)
    return reporter


def _first_sent(link: Link, operation: str, reporter: Reporter, make: Callable[[_State], Reporter]) -> Reporter:
    try:
        _send_first(link, reporter)
    except (Invalid, OperationEnded):
        # It changed since it was looked at. If it was cancelled, `running` can't follow, but the worker has to hear.
        reporter = make(_read_state(link, operation))
        _send_first(link, reporter)
    return reporter


def _send_first(link: Link, reporter: Reporter) -> None:
    call = reporter.call(time.monotonic())
    if call is not None:
        reporter.acknowledged(read_answer(link.run(call)))


def _read_state(link: Link, operation: str) -> _State:
    key = link.keyspace().operation(operation).snapshot
    with storage_errors():
        gone, status, attempt, lease_ms, progress, cancel, created, limits, traceparent = link.client().hmget(
            key, _FIELDS
        )
    if gone is not None:
        raise Gone(f"operation {operation} was deleted")
    if status is None:
        raise NotFound(f"there is no operation {operation}: it was never created, or its retention has passed")
    try:
        told = orjson.loads(progress) if progress is not None else {}
    except orjson.JSONDecodeError:
        told = {}  # a worker in another language may have written anything
    return _State(
        Status(status.decode()),
        int(attempt or 1),
        int(lease_ms or 0) / 1000 or None,
        told if isinstance(told, dict) else {},
        None if cancel is None else read_cancel(cancel),
        int(created) if created else None,
        int(limits.split()[3]) / 1000 if limits else None,
        (traceparent or b"").decode("latin-1"),
    )
