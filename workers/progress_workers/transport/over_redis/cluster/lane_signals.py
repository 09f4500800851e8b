"""Reads the signals of operations in several lanes: a thread for each lane, as one command can name one lane's keys."""

import logging
import time
from collections.abc import Collection, Mapping
from queue import Empty, SimpleQueue

from progress_broker.errors import StorageFull, StorageUnavailable
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.runtime.backoff import Backoff
from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_workers.core.wakeup import Wakeup
from progress_workers.transport.carrier import Rewound
from progress_workers.transport.daemon import Background
from progress_workers.transport.over_redis.connection import Connection
from progress_workers.transport.over_redis.signals import SignalStreams

logger = logging.getLogger(__name__)

_WAKE_PAUSES_S = (0.001, 0.004, 0.016, 0.064)
"""Pauses between attempts to have a lane's thread see a new operation. After them, it does when its wait ends."""


class _Stream:
    """One operation's signals, as a lane's thread reads them: it is ahead of what was delivered."""

    def __init__(self, after: SignalPosition) -> None:
        self.after = after


_Read = list[tuple[_Stream, ArrivedSignal | Rewound]]
_Arrived = SimpleQueue[_Read | StorageUnavailable | StorageFull]


class _Lane:
    """The thread that reads one lane's signals. It sleeps, without a connection, while the lane has no operation."""

    def __init__(self, connection: Connection, arrived: _Arrived, slot: int) -> None:
        self._streams, self._arrived = SignalStreams(connection), arrived
        self._wanted: dict[str, _Stream] = {}
        self._seen: dict[str, _Stream] = {}
        self._wakeup = Wakeup()
        self._thread = Background(f"progress-signals-{slot}", self._run)

    def update(self, positions: Mapping[str, SignalPosition], again: Collection[str]) -> Mapping[str, _Stream]:
        """Read the signals of these operations from now on: after what was read already, or `again` after a position.

        Return what reads them now. What was read for an operation by another one before is to be dropped.
        """
        old, wanted = self._wanted, dict[str, _Stream]()
        for operation, after in positions.items():
            stream = old.get(operation)
            wanted[operation] = _Stream(after) if stream is None or operation in again else stream
        begins = any(stream is not old.get(operation) for operation, stream in wanted.items())
        if not begins and len(wanted) == len(old):
            return old
        self._wanted = wanted
        self._wakeup.set()
        self._thread.start()
        if begins and self._seen:  # it may still wait for others, also if those are over
            for pause_s in _WAKE_PAUSES_S:
                if self._seen is wanted or not self._streams.end_wait():
                    break
                time.sleep(pause_s)
        return wanted

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            self._wakeup.clear()
            wanted = self._seen = self._wanted
            if not wanted:
                self._streams.disconnect()
                self._wakeup.wait()
                continue
            try:
                signals = self._streams.read({operation: stream.after for operation, stream in wanted.items()})
                if signals:
                    for signal in signals:
                        wanted[signal.operation].after = signal.position
                    self._arrived.put([(wanted[signal.operation], signal) for signal in signals])
                if backoff.failing:  # what it missed is found by whoever is told
                    backoff.succeeded()
                    self._arrived.put(StorageUnavailable("reading signals was interrupted"))
            except (StorageUnavailable, StorageFull) as error:
                if not backoff.failing:
                    self._arrived.put(error)
                time.sleep(max(backoff.failed(), error.retry_s or 0.0))
            except Exception:
                logger.exception("an unexpected error occurred while reading signals; reading is retried")
                time.sleep(backoff.failed())


class SignalWaits:
    """The signals of all operations of this process. One thread reads them; any thread may end its wait.

    As long as they have been in one lane only, or on one server, that thread reads itself.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._one = SignalStreams(connection)
        self._slot: int | None = None
        self._lanes: dict[int, _Lane] = {}
        self._arrived: _Arrived = SimpleQueue()
        self._returned: dict[str, SignalPosition] = {}
        """The position of the last signal of each operation that was returned."""
        self._waits = False
        self._error: StorageUnavailable | StorageFull | None = None

    def read(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal | Rewound]:
        """Return the signals after these positions. Wait at most `BLOCK_MS` for the first."""
        lanes = self._connection.lanes_of(positions)
        if lanes is None or (len(lanes) == 1 and not self._lanes):
            slot = None if lanes is None else next(iter(lanes))
            if slot != self._slot:  # another node may have it
                self._one, self._slot = SignalStreams(self._connection), slot
            return self._one.read(positions)
        for slot in lanes:
            if slot not in self._lanes:
                self._lanes[slot] = _Lane(self._connection, self._arrived, slot)
        # What was returned is delivered by now, so a lower position is that of another reporter, which heard nothing.
        returned = {operation: self._returned.get(operation, at) for operation, at in positions.items()}
        again = [operation for operation, at in positions.items() if at < returned[operation]]
        self._returned = returned | {operation: positions[operation] for operation in again}
        streams: dict[str, _Stream] = {}
        for slot, lane in self._lanes.items():
            streams |= lane.update({operation: positions[operation] for operation in lanes.get(slot, ())}, again)
        found = [signal for stream, signal in self._take() if streams.get(signal.operation) is stream]
        self._returned |= {signal.operation: signal.position for signal in found}
        return found

    def _take(self) -> _Read:
        """Wait for what lanes read; return all that is there. Raise what a lane met when nothing is left to return."""
        found: _Read = []
        self._waits = self._error is None
        try:
            while True:
                some = self._arrived.get(timeout=BLOCK_MS / 1000) if self._waits else self._arrived.get_nowait()
                self._waits = False
                if isinstance(some, list):
                    found += some
                else:
                    self._error = some
        except Empty:
            self._waits = False
        error, self._error = self._error, None
        if error is not None and not found:
            raise error
        self._error = error
        return found

    def rest(self) -> None:
        """Have the lanes' threads sleep until `read` is called again. What they have read by then is for nobody."""
        for lane in self._lanes.values():
            lane.update({}, ())
        for _ in range(self._arrived.qsize()):
            self._arrived.get()
        self._returned, self._error = {}, None

    def end_wait(self) -> bool:
        """End the wait for signals. Return whether there may be one that goes on."""
        if not self._lanes:
            return self._one.end_wait()
        self._arrived.put([])
        return self._waits
