"""Makes publishes fit the limits of a server, which may be lower than those of this worker: it loses details only."""

import logging
from dataclasses import replace
from typing import Any

import orjson

from progress_broker.errors import BrokerError, RejectedEvents, TooLarge
from progress_broker.model.entry import NewEvent
from progress_broker.model.publish import Publish, Published
from progress_workers.core.encoding import log_json, progress_json, room
from progress_workers.core.outgoing.backlog import Line
from progress_workers.values import text

logger = logging.getLogger(__name__)

_BRIEF_CHARS = 200


class ServerLimits:
    """The limits of one server, as far as its rejections have told them."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._known: RejectedEvents | None = None
        self._told = False

    def fitted(self, publish: Publish) -> Publish:
        """Return a publish whose events fit the limits that are known."""
        known = self._known
        if known is None:
            return publish
        large = [at for at, entry in enumerate(publish.entries) if len(entry.data) > _limit_of(entry, known)]
        return (publish if not large else self._smaller(publish, known._replace(numbers=tuple(large)))) or publish

    def learn(self, answer: Published | BrokerError) -> None:
        """Learn the limits from an answer of the server, if it has any."""
        if isinstance(answer, TooLarge) and answer.events is not None:
            self._known = answer.events

    def without_rejected(self, publish: Publish, error: BrokerError) -> Publish | None:
        """Return a publish with smaller events, or none, for those that the server rejected; None: that can't be."""
        if (rejected := error.events) is None:
            return None
        if not self._told:
            self._told = True
            logger.warning(
                "%s does not take all events of operation %s: %s. They are shortened or left out, and so are further"
                " ones, without a warning. Set PROGRESS_MAX_EVENT_BYTES and PROGRESS_MAX_PROGRESS_BYTES of this worker"
                " to those of the server",
                self._peer,
                publish.operation,
                error.detail,
            )
        return self._smaller(publish, rejected)

    def _smaller(self, publish: Publish, rejected: RejectedEvents) -> Publish | None:
        numbers, entries = frozenset(rejected.numbers), list[NewEvent]()
        for at, entry in enumerate(publish.entries):
            smaller = entry if at not in numbers else _smaller(entry, rejected)
            if smaller is not None:
                entries.append(smaller)
            elif entry.type in _NEEDED:
                return None
        return publish._replace(entries=entries) if entries != publish.entries else None


def _limit_of(entry: NewEvent, limits: RejectedEvents) -> int:
    return limits.max_progress_bytes if entry.type == "progress" else limits.max_event_bytes


def _smaller(entry: NewEvent, limits: RejectedEvents) -> NewEvent | None:
    """Return what to send in place of an event that was rejected; None if nothing fits."""
    most, shorten = _limit_of(entry, limits), _SHORTENED.get(entry.type)
    if entry.type == "status":
        return None
    if shorten is not None and (len(entry.data) > most or entry.type == "end"):
        smaller = replace(entry, data=shorten(orjson.loads(entry.data), most))
    else:
        takes = f"takes {most:,}" if len(entry.data) > most else "does not take it"
        said = (
            f"an event of type {entry.type!r} with {len(entry.data):,} bytes of data was left out: the server {takes}"
        )
        smaller = replace(entry, type="log", data=log_json(Line(said, "warning", None)), count=None)
    return smaller if len(smaller.data) <= _limit_of(smaller, limits) and smaller != entry else None


def _progress(data: dict[str, Any], most: int) -> bytes:
    return progress_json(data, most)[0]


def _log(data: dict[str, Any], most: int) -> bytes:
    line = Line(data["message"], data.get("level", "info"), data.get("stage"), data.get("dropped", 0))
    return log_json(line, room(most))


def _end(data: dict[str, Any], most: int) -> bytes:
    """Return an end without its result, and with a brief error."""
    error = data.get("error")
    if error is not None:
        error = {
            "type": text(error.get("type", ""), _BRIEF_CHARS),
            "message": text(error.get("message", ""), room(most)),
        }
    return orjson.dumps({"status": data["status"], "result": None, "error": error})


_NEEDED = frozenset({"status", "end"})
"""Without these an operation would not begin or end."""
_SHORTENED = {"progress": _progress, "log": _log, "end": _end}
