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

from broker.connections import storage_errors
from broker.errors import Gone, Invalid, NotFound, OperationEnded, OperationExists
from broker.models import NewOperation, Status
from broker.publishing import create_call, invalid, read_answer
from broker.settings import Settings, load_settings
from workers.errors import Stop
from workers.link import Link, link_to
from workers.payloads import cut
from workers.reporter import INTERVAL_S, Reporter


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
    ends: bool
    """Whether leaving the block ends the operation, the default; False is for one of several processes on it."""


class StartOptions(TypedDict, total=False):
    """What can be said when an operation is started. Durations are in seconds."""

    id: str | None
    title: str | None
    owner: str | None
    tags: Iterable[str]
    parent: str | None
    total: float | None
    unit: str | None
    lease_s: float | Default | None
    """How long the worker may be silent before it counts as stalled; None for ever; by default as the server says."""
    settings: Settings | None
    worker: str | None
    interval_s: float


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


_FIELDS: Final = ("gone", "status", "attempt", "lease_ms", "progress")


def start(
    kind: str,
    *,
    id: str | None = None,
    title: str | None = None,
    owner: str | None = None,
    tags: Iterable[str] = (),
    parent: str | None = None,
    total: float | None = None,
    unit: str | None = None,
    lease_s: float | Default | None = Default.LEASE,
    settings: Settings | None = None,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
) -> Opened:
    """Create an operation, or find it if it was created alike before, and say that it runs."""
    settings = settings or load_settings()
    lease = settings.lease_s if lease_s is Default.LEASE else lease_s
    if isinstance(tags, str):
        raise Invalid("tags are a list: a single one goes into [ ] too", field="tags")
    given = {"kind": kind, "title": title, "owner": owner, "tags": list(tags), "parent": parent, "lease_s": lease}
    try:
        new = NewOperation.model_validate({"id": secrets.token_hex(10) if id is None else id, **given})
    except ValidationError as error:
        raise invalid(error) from None
    link = link_to(settings)
    operation = str(new.id)
    reply = link.run(create_call(operation, link.keyspace().operation(operation), new, settings))
    try:
        read_answer(reply)
    except OperationExists as error:
        raise OperationExists(f"{error.detail}: start it just as it was, or choose another id") from None
    made = bool(reply[4])
    state = _State(lease_s=new.lease_s) if made else _read_state(link, operation)

    def reporter(state: _State) -> Reporter:
        reporter = _reporter(link, settings, operation, state, worker, interval_s, total=total, unit=unit)
        reporter.progress.resume(state.progress, percent_only=True)  # its loop begins again, its percentage does not
        return reporter

    return Opened(link, _announced(link, operation, state, reporter), settings, True)


def attach(
    operation: str,
    *,
    settings: Settings | None = None,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    ends: bool = True,
) -> Opened:
    """Join an operation that exists, and go on from the progress it has."""
    settings = settings or load_settings()
    link = link_to(settings)

    def reporter(state: _State) -> Reporter:
        reporter = _reporter(link, settings, operation, state, worker, interval_s, ends=ends)
        reporter.progress.resume(state.progress)
        return reporter

    state = _read_state(link, operation)
    return Opened(link, _announced(link, operation, state, reporter), settings, ends)


def _reporter(
    link: Link,
    settings: Settings,
    operation: str,
    state: _State,
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
        worker=cut(worker or _here(), 128) if ends or worker else "",
        announce=state.status in (Status.PENDING, Status.STALLED),
        # A beat is progress said again. Only whose progress it is may do that: a helper's is older.
        beat_lease_s=state.lease_s if ends else None,
        interval_s=interval_s,
        wake=link.wake,
    )
    if state.status is Status.CANCELLING:
        reporter.cancel(Stop())
    return reporter


def _here() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _announced(link: Link, operation: str, state: _State, make: Callable[[_State], Reporter]) -> Reporter:
    reporter = make(state)
    try:
        _send_first(link, reporter)
    except (Invalid, OperationEnded):
        # It changed since it was looked at. If it was cancelled, `running` can't follow, but the worker has to hear.
        reporter = make(_read_state(link, operation))
        _send_first(link, reporter)
    link.follow(reporter)
    return reporter


def _send_first(link: Link, reporter: Reporter) -> None:
    call = reporter.call(time.monotonic())
    if call is not None:
        reporter.acknowledged(read_answer(link.run(call)))


def _read_state(link: Link, operation: str) -> _State:
    key = link.keyspace().operation(operation).snapshot
    with storage_errors():
        gone, status, attempt, lease_ms, progress = link.client().hmget(key, _FIELDS)
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
    )
