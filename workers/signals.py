"""The background thread that hears what operations are told: one blocking XREAD over their signals streams."""

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Event, Thread
from typing import Any

import orjson
import redis.exceptions

from broker.connections import BLOCK_MS, storage_errors
from broker.errors import BrokerError, StorageFull, StorageUnavailable
from workers.backoff import Backoff
from workers.errors import Stop
from workers.reporter import Reporter

logger = logging.getLogger(__name__)

_START = "0-0"
_COUNT = 100
_NUDGES_S = (0.001, 0.004, 0.016, 0.064)
"""Pauses between attempts to wake the reader; then it is left to notice by itself, within `BLOCK_MS`."""


class _Stream:
    """A stream that is listened to: from where, and for whom."""

    def __init__(self) -> None:
        self.position = _START
        self.reporters: set[Reporter] = set()


class Signals:
    """Listens for all operations of this process. One thread, that sleeps while there are none."""

    def __init__(self, client: Callable[[], Any], blocking_client: Callable[[], Any]) -> None:
        self._client, self._blocking_client = client, blocking_client
        self._changed = Condition()
        self._streams: dict[str, _Stream] = {}
        self._generation = self._heard = 0
        """How often the streams changed, and which of these changes the reader has seen."""
        self._reader_id: int | None = None
        self._thread: Thread | None = None

    def add(self, reporter: Reporter) -> None:
        """Listen for an operation, from the beginning of its stream: a cancel may have come before. Does not wait."""
        with self._changed:
            stream = self._streams.setdefault(reporter.keys.signals, _Stream())
            stream.reporters.add(reporter)
            stream.position = _START
            self._generation += 1
            self._changed.notify_all()
            if self._thread is None or not self._thread.is_alive():
                self._thread = Thread(target=self._run, name="progress-signals", daemon=True)
                self._thread.start()

    def remove(self, reporter: Reporter) -> None:
        """Stop listening for an operation. The reader is not woken: its next read leaves the stream out."""
        with self._changed:
            stream = self._streams.get(reporter.keys.signals)
            if stream is not None:
                stream.reporters.discard(reporter)
                if not stream.reporters:
                    del self._streams[reporter.keys.signals]

    def nudge(self) -> None:
        """Have the reader take up what was added, now: end its blocking read from another connection, if allowed."""
        with self._changed:
            wanted = self._generation
        for pause_s in _NUDGES_S:
            reader = self._reader_id
            if reader is None or self._heard >= wanted:
                return  # it is not reading, or has seen the change
            # Not allowed, or Redis is away: then it hears of the change when its read ends by itself.
            with suppress(BrokerError, redis.exceptions.ResponseError), storage_errors():
                self._client().client_unblock(reader)
            with self._changed:
                self._changed.wait_for(lambda: self._heard >= wanted, pause_s)

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._listen(backoff)
            except (StorageUnavailable, StorageFull, redis.exceptions.ResponseError) as error:
                self._reader_id = None
                logger.debug("signals can't be read now: %s", error)
                Event().wait(backoff.failed())

    def _listen(self, backoff: Backoff) -> None:
        with storage_errors():
            client = self._blocking_client()
            with suppress(redis.exceptions.ResponseError):  # not everywhere allowed, and only needed for nudges
                self._reader_id = int(client.client_id())
            while True:
                positions = self._positions()
                reply = client.execute_command(
                    "XREAD", "COUNT", _COUNT, "BLOCK", BLOCK_MS, "STREAMS", *positions, *positions.values()
                )
                backoff.succeeded()
                for key, entries in reply or ():
                    name = key.decode()
                    self._deliver(name, positions[name], entries)

    def _positions(self) -> dict[str, str]:
        """Return where to read on, once there is anything to listen for."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._streams))
            self._heard = self._generation
            self._changed.notify_all()
            return {key: stream.position for key, stream in self._streams.items()}

    def _deliver(self, key: str, after: str, entries: list[Any]) -> None:
        with self._changed:
            stream = self._streams.get(key)
            if stream is None or not entries:
                return
            if stream.position == after:  # else it was set back meanwhile, for one who has to hear it all
                stream.position = entries[-1][0].decode()
            reporters = list(stream.reporters)
        for _, fields in entries:
            stop = _read_cancel(dict(zip(fields[::2], fields[1::2], strict=False)))
            if stop is not None:
                for reporter in reporters:
                    reporter.cancel(stop)


def _read_cancel(fields: dict[bytes, bytes]) -> Stop | None:
    """Return the cancel that a signal is, None if it is another (a later release may send more)."""
    if fields.get(b"t") != b"cancel":
        return None
    try:
        said = orjson.loads(fields.get(b"d", b"{}"))
    except orjson.JSONDecodeError:
        said = {}  # a cancel without a readable reason is one all the same
    reason, by = (said.get("reason"), said.get("by")) if isinstance(said, dict) else (None, None)
    return Stop(reason if isinstance(reason, str) else None, by if isinstance(by, str) else None)
