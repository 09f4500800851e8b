"""One broker as this process uses it: the carrier to it, and the background threads."""

import time
import weakref
from collections.abc import Callable

from progress_broker.errors import BrokerError, Forbidden, StorageUnavailable
from progress_broker.model.publish import Publish, Published
from progress_broker.settings import Settings
from progress_client.address import server_url
from progress_workers.core import encoding
from progress_workers.core.reporter import Reporter
from progress_workers.errors import Cancelled
from progress_workers.spool.spool import Spool, broker_name
from progress_workers.transport.answers import AWAY, checked_answer, refuse
from progress_workers.transport.carrier import Carrier
from progress_workers.transport.heartbeats import Heartbeats
from progress_workers.transport.opening.children import NewChildren
from progress_workers.transport.opening.start import FRESH_S, OPEN_S, Start, open_now
from progress_workers.transport.over_redis.carrier import RedisCarrier
from progress_workers.transport.over_redis.connection import Connection
from progress_workers.transport.sender import Sender
from progress_workers.transport.signal_reader import Signals
from progress_workers.transport.spooler import Spooler

FLUSH_S = 5.0
"""How long leaving a block, or ending the process, waits until all reports are stored."""


class Link:
    """One broker as this process uses it. Connections and threads start only when they are needed."""

    def __init__(
        self,
        settings: Settings,
        carrier: Carrier | None = None,
        before_report: Callable[[], None] = lambda: None,
    ) -> None:
        self.carrier = carrier or _carrier_of(settings)
        self._before_report = before_report
        self._settings = settings
        self._known: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._reported_dropped: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._begin()

    def _begin(self) -> None:
        self._starting: dict[Reporter, bool] = {}
        """The reporters that belong to the thread that opens their operations, each with whether it is still wanted."""
        self._children = NewChildren()
        self._sender = Sender(self.carrier, self._opened, self._gone, self._spooler(), self._children)
        self._heartbeats = Heartbeats(self.carrier)
        self._signals = Signals(self.carrier, self._heartbeats.check_now)

    def publish(self, publish: Publish) -> Published:
        """Store one publish now; raise the error that it was rejected with, `StorageUnavailable` or `StorageFull`."""
        (answer,) = self.carrier.publish([publish])
        return checked_answer(answer)

    def open(self, reporter: Reporter, *, required: bool) -> None:
        """Open a reporter's operation. If the broker does not answer within `OPEN_S`, that happens later.

        With `required`, wait for the answer instead, and raise `StorageUnavailable`, `StorageFull` or `SetupError`.
        Also raises `OperationExists`, `OperationEnded`, `NotFound`, `Gone` or `Cancelled`.
        """
        self._children.add(reporter.opening)
        if required:
            error = self._open_here(reporter)
            if error is not None:
                raise error
        elif self._sender.away:
            self._open_later(reporter, None)
        elif time.monotonic() < self._sender.answered_at + FRESH_S:
            self._check_start(reporter, self._open_here(reporter))
        else:
            self._open_soon(reporter)

    def _open_here(self, reporter: Reporter) -> Exception | None:
        try:
            open_now(self.carrier, reporter)
        except Exception as error:
            return error
        self._sender.answered_at = time.monotonic()
        self.follow(reporter)
        return None

    def _open_soon(self, reporter: Reporter) -> None:
        self._starting[reporter] = True
        start = Start(self.carrier, reporter, lambda error, awaited: self._start_over(reporter, error, awaited))
        try:
            over = start.wait(OPEN_S)
        except BaseException as error:  # interrupted: nobody will work on it
            if reporter in self._starting:
                self._starting[reporter] = False
            reporter.end(encoding.failed(error, self._settings))
            raise
        if over:
            self._check_start(reporter, start.error)
        else:
            reporter.begin_trace()
            peer = self.carrier.peer
            self._sender.fail(StorageUnavailable(f"{peer} did not answer within {OPEN_S:g} s"))

    def _check_start(self, reporter: Reporter, error: Exception | None) -> None:
        """Raise the error of a start, unless the work must go on without an answer, or without a grant."""
        if isinstance(error, AWAY):
            self._open_later(reporter, error)
        elif isinstance(error, Forbidden):
            refuse(reporter, error)
        elif error is not None:
            reporter.trace.end(None)
            raise error

    def _start_over(self, reporter: Reporter, error: Exception | None, awaited: bool) -> Exception | None:
        """Take a reporter back from the thread that opened its operation, or failed to."""
        wanted = self._starting.pop(reporter, True)
        if error is None:
            self._sender.answered_at = time.monotonic()
            self.follow(reporter)
        elif not wanted:
            reporter.discard(told=False)
        elif not awaited:
            if isinstance(error, BrokerError | Cancelled) and not isinstance(error, AWAY):
                refuse(reporter, error)
            else:
                self._sender.wake(reporter)
        return error

    def _open_later(self, reporter: Reporter, error: BrokerError | None) -> None:
        reporter.begin_trace()
        self._sender.open_later(reporter, error)
        self.wake(reporter)

    def follow(self, reporter: Reporter) -> None:
        """Send the reports of a reporter from now on, and listen for its operation's signals."""
        if not reporter.done:
            self.wake(reporter)
            self._signals.wake()

    def wake(self, reporter: Reporter) -> None:
        """Note that a reporter may have something to send. The reporter itself calls this."""
        if reporter not in self._sender:
            self._before_report()
            self._known.add(reporter)
            if reporter in self._starting:
                return
            if not reporter.done and reporter.opening is None:
                self._opened(reporter)
        self._sender.wake(reporter)

    def flush(self, reporters: list[Reporter] | None = None, timeout_s: float = FLUSH_S) -> bool:
        """Wait until everything from these reporters is stored. Return whether it was, within the timeout.

        Without `reporters`, wait for all, except for what was dropped: that is already logged.
        """
        if reporters is None:
            starting = [reporter for reporter, wanted in list(self._starting.items()) if wanted]
            return self._sender.settled([*self._sender.pending(), *starting], timeout_s)
        return self._sender.flush(reporters, timeout_s)

    def tell_dropped(self) -> bool:
        """Return whether reports of an operation that is still in use were dropped, or lost, since the last call."""
        known = list(self._known)
        lost = [reporter for reporter in known if reporter.tell_loss()]
        dropped = {reporter for reporter in known if reporter.dropped or reporter.unconfirmed}
        dropped -= set(self._reported_dropped)
        self._reported_dropped.update(dropped)
        return bool(dropped or lost)

    def exit_timeout_s(self) -> float:
        """Return how long the end of a block, or of the process, waits for storage."""
        return self._sender.exit_timeout_s(FLUSH_S)

    def when_stored(self, reporter: Reporter, callback: Callable[[], None]) -> Callable[[], object]:
        """Call back, from any thread, once a reporter's reports are stored. Returns a function to remove it."""
        return self._sender.when_stored([reporter], callback)

    def after_fork(self) -> None:
        """Restart in a forked child: the connections and threads belong to the parent."""
        self.carrier.after_fork()
        self._sender.after_fork()
        self._begin()
        self.tell_dropped()  # the parent reports these
        for reporter in list(self._known):
            reporter.after_fork()

    def _spooler(self) -> Spooler | None:
        settings = self._settings
        if settings.spool_dir is None:
            return None
        spool = Spool(settings.spool_dir, broker_name(settings), settings.spool_max_bytes)
        return Spooler(spool, self.carrier, self._opened)

    def _opened(self, reporter: Reporter) -> None:
        for each in list(self._known) if reporter.missing is not None else ():
            each.follow_creation(reporter)
        self._signals.add(reporter)
        self._heartbeats.add(reporter)

    def _gone(self, reporter: Reporter) -> None:
        self._signals.remove(reporter)
        self._heartbeats.remove(reporter)


def check_settings(settings: Settings) -> None:
    """Raise `SetupError` if no carrier can be made: both addresses are set, or the extra `http` is missing."""
    if not settings.disabled:
        _maker_of(settings)


def _carrier_of(settings: Settings) -> Carrier:
    return _maker_of(settings)(settings)


def _maker_of(settings: Settings) -> Callable[[Settings], Carrier]:
    if server_url(settings) is None:
        return _over_redis
    from progress_workers.transport.over_http.carrier import HttpCarrier  # it needs the extra `http`

    return HttpCarrier


def _over_redis(settings: Settings) -> Carrier:
    return RedisCarrier(Connection(settings))
