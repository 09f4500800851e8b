"""One broker as this process uses it: the carrier to it, and the background threads."""

import weakref
from collections.abc import Callable

from progress_broker.errors import BrokerError
from progress_broker.model.publish import Publish, Published
from progress_broker.settings import Settings
from progress_workers.core.reporter import Reporter
from progress_workers.transport.carrier import Carrier
from progress_workers.transport.heartbeats import Heartbeats
from progress_workers.transport.over_redis.carrier import RedisCarrier
from progress_workers.transport.over_redis.connection import Connection
from progress_workers.transport.sender import Sender
from progress_workers.transport.signal_reader import Signals

FLUSH_S = 5.0
"""How long leaving a block, or ending the process, waits until all reports are stored."""


class Link:
    """One broker as this process uses it. Connections and threads start only when they are needed."""

    def __init__(self, settings: Settings, carrier: Carrier | None = None) -> None:
        self.carrier = carrier or RedisCarrier(Connection(settings))
        self._known: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._reported_dropped: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._begin()

    def _begin(self) -> None:
        self._sender = Sender(self.carrier, self._gone)
        self._heartbeats = Heartbeats(self.carrier)
        self._signals = Signals(self.carrier, self._heartbeats.check_now)

    def publish(self, publish: Publish) -> Published:
        """Store one publish now; raise the error that it was rejected with, `StorageUnavailable` or `StorageFull`."""
        (answer,) = self.carrier.publish([publish])
        if isinstance(answer, BrokerError):
            raise answer
        return answer

    def follow(self, reporter: Reporter) -> None:
        """Send the reports of a reporter from now on, and listen for its operation's signals."""
        self._known.add(reporter)
        self.wake(reporter)
        self._signals.wake()

    def wake(self, reporter: Reporter) -> None:
        """Note that a reporter may have something to send. The reporter itself calls this."""
        if reporter not in self._sender and not reporter.done:
            self._known.add(reporter)
            self._signals.add(reporter)
            self._heartbeats.add(reporter)
        self._sender.wake(reporter)

    def flush(self, reporters: list[Reporter] | None = None, timeout_s: float = FLUSH_S) -> bool:
        """Wait until everything from these reporters (or all) is stored. Return whether it was, within the timeout."""
        return self._sender.flush(self._sender.pending() if reporters is None else reporters, timeout_s)

    def tell_dropped(self) -> bool:
        """Return whether reports of an operation that is still in use were dropped since the last call."""
        dropped = {reporter for reporter in list(self._known) if reporter.dropped} - set(self._reported_dropped)
        self._reported_dropped.update(dropped)
        return bool(dropped)

    def exit_timeout_s(self) -> float:
        """Return how long the end of a block, or of the process, waits for storage."""
        return self._sender.exit_timeout_s(FLUSH_S)

    def when_stored(self, reporter: Reporter, callback: Callable[[], None]) -> Callable[[], object]:
        """Call back, from any thread, once a reporter's reports are stored. Returns a function to remove it."""
        return self._sender.when_stored([reporter], callback)

    def after_fork(self) -> None:
        """Restart in a forked child: the connections and threads belong to the parent."""
        self.carrier.after_fork()
        self._begin()
        self.tell_dropped()  # the parent reports these
        for reporter in list(self._known):
            reporter.after_fork()

    def _gone(self, reporter: Reporter) -> None:
        self._signals.remove(reporter)
        self._heartbeats.remove(reporter)
