"""Calls of the scripts that change an operation, and what they reply. No I/O happens here.

The store sends such calls for the HTTP edge, the worker SDK for its own process: one way in, two carriers.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from progress_broker.errors import Gap, rejection
from progress_broker.model.entry import NewEvent, encode_data
from progress_broker.model.metadata import FIELD, check_size, indexed
from progress_broker.model.operation import Cancel, NewOperation, NewSignal, PublishResult
from progress_broker.model.publish import Created, Publish, Published, read_counts
from progress_broker.nodes.calls import Call
from progress_broker.settings import Settings
from progress_broker.storage.keys import OperationKeys
from progress_broker.storage.scripts import CREATE, DELETE, PROBE, PUBLISH, SIGNAL

PROBE_PERIODS_KEPT = 5
"""Its probe operation is kept for so many periods. The lane's next probe extends that, or creates it again."""


def all_keys(keys: OperationKeys) -> tuple[str, ...]:
    """Return the keys that a script which changes an operation is given."""
    lane = keys.lane
    return (keys.snapshot, keys.log, keys.signals, lane.feed, lane.index, lane.expiry, lane.leases)


def create_call(
    operation: str, keys: OperationKeys, new: NewOperation, settings: Settings, traceparent: str = ""
) -> Call:
    """Return the call that creates an operation, unless it exists with the same body; raise `TooLarge`."""
    spec = new.model_dump(mode="json", exclude={"id", "metadata"})
    if "lease_s" not in new.model_fields_set:
        spec["lease_s"] = settings.lease_s
    for name in ("history_length", "retention_s"):  # the same creation stays the same bytes, whichever release sends it
        if spec[name] is None:
            del spec[name]
    listed = [
        ("kind", new.kind),
        ("owner", new.owner),
        ("parent", new.parent),
        *(("tag", tag) for tag in new.tags),
        *((FIELD, pair) for pair in indexed(new.metadata)),
    ]
    args: list[str | bytes] = [operation, orjson.dumps(spec, option=orjson.OPT_SORT_KEYS)]
    for index in dict.fromkeys(f"{field}:{value}" for field, value in listed if value):
        args += ("INDEX", index)
    args += ("HISTORY", str(new.history_length or settings.history_length), "FEED", str(settings.feed_length))
    if new.retention_s is not None:
        args += ("RETENTION", str(max(1, round(new.retention_s * 1000))))
    if spec["lease_s"] is not None:
        args += ("LEASE", str(round(spec["lease_s"] * 1000)))
    if traceparent:
        args += ("TRACEPARENT", traceparent)
    if new.metadata:  # not in the spec, which earlier releases read, and they reject unknown fields
        args += ("METADATA", check_size(orjson.dumps(new.metadata, option=orjson.OPT_SORT_KEYS)))
    return Call(CREATE, all_keys(keys), args)


def signal_call(operation: str, keys: OperationKeys, signal: NewSignal, by: str | None, settings: Settings) -> Call:
    """Return the call that sends a signal to an operation's worker; raise `TooLarge`."""
    args = (operation, signal.type, encode_data(signal.type, signal.data, settings))
    return Call(SIGNAL, (keys.snapshot, keys.signals, keys.lane.feed), (*args, "BY", by) if by else args)


def delete_call(operation: str, keys: OperationKeys, *, force: bool, settings: Settings) -> Call:
    """Return the call that deletes an operation and leaves a tombstone."""
    tombstone = ("TOMBSTONE", str(round(settings.tombstone_ttl_s * 1000)))
    return Call(DELETE, all_keys(keys), (operation, "FORCE", *tombstone) if force else (operation, *tombstone))


def probe_call(keys: OperationKeys, settings: Settings) -> Call:
    """Return the call that makes ready what a probe is published to."""
    lasts_ms = round(1000 * PROBE_PERIODS_KEPT * settings.probe_interval_s)
    return Call(PROBE, (keys.snapshot, keys.log, keys.lane.feed), (str(settings.feed_length), str(lasts_ms)))


def publish_call(
    operation: str,
    keys: OperationKeys,
    entries: Iterable[NewEvent],
    *,
    attempt: int | None = None,
    begins: bool = False,
    created_ms: int | None = None,
    worker: str = "",
    expect: str = "",
    lease_expired: bool = False,
    lease_ms: int | None = None,
    as_observer: bool = False,
    traceparent: str = "",
    after: tuple[str, int] | None = None,
) -> Call:
    """Return the call that appends entries to an operation, all or none; without entries it is a heartbeat.

    `attempt` fences: an older one than the operation's is rejected, and one of an operation of this id that was not
    created at `created_ms`; if it `begins`, it takes over from the one before. `expect` is the status it must have, if
    given, and with `lease_expired` its lease must have expired. Its worker may be silent for `lease_ms` from now on, if
    that is longer than its lease. An observer is not its worker: its lease stays as it is.
    """
    args: list[str | bytes] = [operation]
    if attempt is not None:
        args += ("ATTEMPT", str(attempt))
    if begins:
        args.append("BEGIN")
    if created_ms is not None:
        args += ("IF_CREATED", str(created_ms))
    if worker:
        args += ("WORKER", worker)
    if expect:
        args += ("IF_STATUS", expect)
    if lease_expired:
        args.append("IF_LEASE_EXPIRED")
    if lease_ms is not None:
        args += ("LEASE", str(lease_ms))
    if as_observer:
        args.append("OBSERVER")
    if traceparent:
        args += ("TRACEPARENT", traceparent)
    if after is not None:
        args += ("AFTER", after[0], str(after[1]))
    for entry in entries:
        args += ("EVENT", entry.type, entry.data)
        if entry.status:
            args += ("STATUS", entry.status)
        if entry.seq is not None:
            args += ("PRODUCER", entry.producer, str(entry.seq))
        if entry.count is not None:
            args += ("COUNT", *map(repr, entry.count))
    return Call(PUBLISH, all_keys(keys), args)


def worker_publish_call(publish: Publish, keys: OperationKeys) -> Call:
    """Return the call that makes a worker's publish."""
    return publish_call(keys=keys, **publish._asdict())


def read_answer(reply: Sequence[Any]) -> PublishResult:
    """Return what a call of create or publish answered; raise the error it stands for if it was rejected."""
    check_rejection(reply)
    cancel = read_cancel(reply[3]) if reply[3] else None
    return PublishResult(
        position=reply[1].decode(), events=int(reply[2]), cancel_requested=bool(reply[3]), cancel=cancel
    )


def read_created(reply: Sequence[Any]) -> Created:
    """Return what a call of create answered; raise the error it stands for if it was rejected."""
    check_rejection(reply)
    idle_timeout_s = int(reply[6]) / 1000 if len(reply) > 6 and reply[6] else None
    return Created(bool(reply[4]), int(reply[2]), int(reply[5]) if reply[5] else None, idle_timeout_s)


def read_published(reply: Sequence[Any]) -> Published:
    """Return what a call of publish answered a worker; raise the error it stands for if it was rejected."""
    check_rejection(reply)
    cancel = read_cancel(reply[3]) if reply[3] else None
    return Published(reply[1].decode(), int(reply[2]), cancel, read_counts(reply[4]) if len(reply) > 4 else None)


def read_cancel(data: bytes) -> Cancel:
    """Return the cancel to report to a worker. One that can't be read still counts as a cancel."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        said = None
    reason, by = (said.get("reason"), said.get("by")) if isinstance(said, dict) else (None, None)
    return Cancel(reason=reason if isinstance(reason, str) else None, by=by if isinstance(by, str) else None)


def check_rejection(reply: Sequence[Any]) -> None:
    """Raise the error that a script's reply stands for, if it is a rejection."""
    if reply[0] != b"ok":
        error = rejection(reply[0].decode(), reply[1].decode("utf-8", "replace"))
        if isinstance(error, Gap):
            error.last = int(reply[2])
        raise error
