"""The calls by which an operation is created, deleted and signalled; publishing has a place of its own."""

import orjson

from progress_broker.model.entry import all_keys, encode_data
from progress_broker.model.operation import NewOperation, NewSignal
from progress_broker.settings import Settings
from progress_broker.storage.keys import OperationKeys
from progress_broker.storage.scripts import CREATE, DELETE, PROBE, SIGNAL, Call

PROBE_PERIODS_KEPT = 5
"""What a probe is published to lasts for so many periods: its lane's next turn finds it anew, or not at all."""


def create_call(
    operation: str, keys: OperationKeys, new: NewOperation, settings: Settings, traceparent: str = ""
) -> Call:
    """Return the call that creates an operation, unless it exists with the same body."""
    spec = new.model_dump(mode="json", exclude={"id"})
    if "lease_s" not in new.model_fields_set:
        spec["lease_s"] = settings.lease_s
    listed = [
        ("kind", new.kind),
        ("owner", new.owner),
        ("parent", new.parent),
        *(("tag", tag) for tag in new.tags),
    ]
    indexes = "\n".join(dict.fromkeys(f"{field}:{value}" for field, value in listed if value))
    limits = (
        settings.history_length,
        settings.feed_length,
        round(settings.retention_s * 1000),
        round(settings.idle_limit_s * 1000),
    )
    args = (
        operation,
        orjson.dumps(spec, option=orjson.OPT_SORT_KEYS),
        indexes,
        " ".join(map(str, limits)),
        str(round((spec["lease_s"] or 0) * 1000)),
    )
    return Call(CREATE, all_keys(keys), (*args, traceparent) if traceparent else args)


def signal_call(operation: str, keys: OperationKeys, signal: NewSignal, by: str | None, settings: Settings) -> Call:
    """Return the call that sends a signal to an operation's worker; raise `TooLarge`."""
    return Call(
        SIGNAL, all_keys(keys), (operation, signal.type, encode_data(signal.type, signal.data, settings), by or "")
    )


def delete_call(operation: str, keys: OperationKeys, *, force: bool, settings: Settings) -> Call:
    """Return the call that deletes an operation and leaves a tombstone."""
    args = (operation, "1" if force else "0", str(round(settings.tombstone_s * 1000)))
    return Call(DELETE, all_keys(keys), args)


def probe_call(keys: OperationKeys, settings: Settings) -> Call:
    """Return the call that makes ready what a probe is published to."""
    lasts_ms = round(1000 * PROBE_PERIODS_KEPT * settings.probe_s)
    return Call(PROBE, (keys.snapshot, keys.log), (str(settings.feed_length), str(lasts_ms)))
