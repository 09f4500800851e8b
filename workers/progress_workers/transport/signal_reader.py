"""The background thread that receives signals: one blocking XREAD over the signal streams of all operations."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import orjson
import redis.exceptions

from progress_broker.errors import BrokerError, StorageFull, StorageUnavailable, Unreadable
from progress_broker.operations.commands import read_cancel
from progress_broker.runtime.backoff import Backoff
from progress_broker.storage.connections import BLOCK_MS
from progress_broker.storage.foreign import warn_once
from progress_broker.storage.redis_errors import storage_errors
from progress_workers.core.inbox import Signal
from progress_workers.core.reporter import Reporter
from progress_workers.core.wakeup import Wakeup
from progress_workers.errors import CancelInfo
from progress_workers.transport.daemon import Background

logger = logging.getLogger(__name__)

_COUNT = 100
_DIGITS = 16
_WAKE_PAUSES_S = (0.001, 0.004, 0.016, 0.064)
"""Pauses between attempts to wake the reader. After them, it notices the change by itself within `BLOCK_MS`."""


class Signals:
    """Receives the signals for all operations of this process, in one thread, which sleeps while there are none.

    Each reporter gets the signals after its own last position, also if several reporters share an operation.
    """

    def __init__(
        self, client: Callable[[], Any], blocking_client: Callable[[], Any], look: Callable[[Reporter], None]
    ) -> None:
        self._client, self._blocking_client, self._look = client, blocking_client, look
        self._reporters: dict[Reporter, None] = {}
        self._wakeup = Wakeup()
        self._added = self._heard = 0
        """How many reporters were added, and how many of them the reader has seen."""
        self._to_wake: dict[Wakeup, None] = {}
        """The wakeups of callers that wait until the reader has seen the added reporters."""
        self._reader_id: int | None = None
        self._thread = Background("progress-signals", self._run)

    def add(self, reporter: Reporter) -> None:
        """Listen for an operation, from the beginning of its stream: a cancel may already be there. Does not block."""
        self._reporters.setdefault(reporter)
        self._added += 1
        self._wakeup.set()
        self._thread.start()

    def remove(self, reporter: Reporter) -> None:
        """Stop listening for an operation. This does not wake the reader: its next read leaves the stream out."""
        self._reporters.pop(reporter, None)

    def wake(self) -> None:
        """Make the reader include the added reporters now: end its blocking read, if that is permitted."""
        wanted, seen = self._added, Wakeup()
        self._to_wake[seen] = None
        try:
            for pause_s in _WAKE_PAUSES_S:
                reader = self._reader_id
                if reader is None or self._heard >= wanted:
                    return  # it is not reading, or it has already seen the change
                # Not permitted, or Redis is unavailable: then it notices the change when its read ends by itself.
                with suppress(BrokerError, redis.exceptions.ResponseError), storage_errors():
                    self._client().client_unblock(reader)
                seen.wait(pause_s)
        finally:
            self._to_wake.pop(seen, None)

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._listen(backoff)
            except (StorageUnavailable, StorageFull) as error:
                logger.debug("signals could not be read; reading is retried: %s", error)
            except (Unreadable, redis.exceptions.ResponseError) as error:
                logger.debug("signals could not be read because of an error of Redis; reading is retried: %s", error)
                self._remove_foreign()
            except Exception:  # this thread serves all operations
                logger.exception("an unexpected error occurred while reading signals; reading is retried")
            self._reader_id = None
            time.sleep(backoff.failed())

    def _listen(self, backoff: Backoff) -> None:
        with storage_errors():
            client = self._blocking_client()
            with suppress(redis.exceptions.ResponseError):  # not permitted everywhere, and needed only by `wake`
                self._reader_id = int(client.client_id())
            while True:
                streams = self._streams()
                positions = [_position(reporters) for reporters in streams.values()]
                reply = client.execute_command(
                    "XREAD", "COUNT", _COUNT, "BLOCK", BLOCK_MS, "STREAMS", *streams, *positions
                )
                backoff.succeeded()
                for key, entries in reply or ():
                    self._deliver(streams[key.decode()], entries)

    def _remove_foreign(self) -> None:
        """Delete a key that another program wrote where signals belong: one such key makes every read fail."""
        with suppress(BrokerError, redis.exceptions.RedisError), storage_errors():
            for key in {reporter.keys.signals for reporter in list(self._reporters)}:
                if self._client().type(key) not in (b"stream", b"none"):
                    warn_once(key, "another program wrote a value that is not a signal stream; the key is deleted")
                    self._client().delete(key)

    def _streams(self) -> dict[str, list[Reporter]]:
        """Return the listeners of each stream, once there are any."""
        while True:
            # The order matters: a reporter that is added from now on wakes the next call.
            self._wakeup.clear()
            self._heard = self._added
            streams: dict[str, list[Reporter]] = {}
            for reporter in list(self._reporters):
                streams.setdefault(reporter.keys.signals, []).append(reporter)
            for seen in list(self._to_wake):
                seen.set()
            if streams:
                return streams
            self._wakeup.wait()

    def _deliver(self, reporters: list[Reporter], entries: list[Any]) -> None:
        for position, pairs in entries:
            ms, _, seq = position.decode().partition("-")
            at, fields = (int(ms), int(seq)), dict(zip(pairs[::2], pairs[1::2], strict=False))
            for reporter in reporters:
                if at > reporter.heard:
                    reporter.heard = at
                    self._apply(reporter, fields)

    def _apply(self, reporter: Reporter, fields: dict[bytes, bytes]) -> None:
        type = fields.get(b"t", b"")
        if reporter.superseded:
            return  # later signals are for the attempt that took over
        if type == b"cancel":
            cancel = read_cancel(fields.get(b"d", b"{}"))
            reporter.cancellation.request(CancelInfo(cancel.reason, cancel.by))
        elif type == b"changed":  # another attempt has begun, or the operation has ended
            attempt = fields.get(b"a", b"0")
            reporter.superseded = attempt.isdigit() and len(attempt) < _DIGITS and int(attempt) > reporter.attempt
            self._look(reporter)
        else:
            reporter.inbox.put(_read_signal(type, fields))


def _position(reporters: list[Reporter]) -> str:
    ms, seq = min(reporter.heard for reporter in reporters)
    return f"{ms}-{seq}"


def _read_signal(type: bytes, fields: dict[bytes, bytes]) -> Signal:
    try:
        data = orjson.loads(fields.get(b"d", b"null"))
    except orjson.JSONDecodeError:
        data = None  # other programs may send any data
    return Signal(type.decode("utf-8", "replace"), data, fields.get(b"b", b"").decode("utf-8", "replace") or None)
