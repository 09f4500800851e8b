"""One Redis as this process uses it: the clients, the keyspace, and the background threads."""

import weakref
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr

from progress_broker.errors import BrokerError, StorageUnavailable
from progress_broker.settings import Settings
from progress_broker.storage.connections import connect, unparsed
from progress_broker.storage.failover import ConnectionGeneration
from progress_broker.storage.keys import Keyspace, meta_key
from progress_broker.storage.protocol_check import check_tls, explained
from progress_broker.storage.schema import META_FIELDS, is_set_up, meta_call, read_meta
from progress_broker.storage.scripts import Call
from progress_workers.core.reporter import Reporter
from progress_workers.transport.heartbeats import Heartbeats
from progress_workers.transport.pipeline import errors_that_may_pass, run_pipeline
from progress_workers.transport.sender import Sender
from progress_workers.transport.signal_reader import Signals

FLUSH_S = 5.0
"""How long leaving a block, or ending the process, waits until all reports are stored."""


class Link:
    """One Redis as this process uses it. Connections and threads start only when they are needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keyspace: Keyspace | None = None
        self._known: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._reported_dropped: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._begin()

    def _begin(self) -> None:
        self._located: Settings | None = None
        self._commands: Any = None
        self._generation = ConnectionGeneration()
        self._sender = Sender(self.client, self._gone)
        self._heartbeats = Heartbeats(self.client)
        self._signals = Signals(self.client, self._blocking_client, self._heartbeats.check_now)

    def client(self) -> Any:
        """Return the client for commands; raise `StorageUnavailable` while the address of Redis is unknown."""
        settings = self._settings if self._settings.redis_url is not None else _locate(self._settings)
        located = self._located
        # The embedded Redis may restart at another address.
        if located is None or located.redis_url != settings.redis_url:
            self._commands = connect(settings, generation=self._generation)
            self._located = settings
        return self._commands

    def _blocking_client(self) -> Any:
        settings = self._settings if self._settings.redis_url is not None else _locate(self._settings)
        connection: Any = connect(settings, blocking=True, generation=self._generation)
        return unparsed(connection.client())  # a single connection, so that CLIENT UNBLOCK can address it

    def keyspace(self) -> Keyspace:
        """Return the keyspace that all programs on this Redis share; raise `SetupError` if our settings differ."""
        if self._keyspace is None:
            client, located = self.client(), self._located or self._settings
            check_tls(located)
            try:
                self._keyspace = read_meta(self._meta(client), self._settings)
            except StorageUnavailable as error:
                raise explained(located, error) from None
        return self._keyspace

    def _meta(self, client: Any) -> Any:
        with errors_that_may_pass():
            known = client.hmget(meta_key(self._settings.prefix), META_FIELDS)
        # Write only if nothing is stored yet: so a Redis that rejects writes can still be read.
        return known if is_set_up(known) else self.run(meta_call(self._settings))

    def run(self, call: Call) -> Any:
        """Run one script now and return its reply; raise `StorageUnavailable` or `StorageFull`."""
        (reply,) = run_pipeline(self.client(), [call])
        if isinstance(reply, BrokerError):
            raise reply
        return reply

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
        self._begin()
        self.tell_dropped()  # the parent reports these
        for reporter in list(self._known):
            reporter.after_fork()

    def _gone(self, reporter: Reporter) -> None:
        self._signals.remove(reporter)
        self._heartbeats.remove(reporter)


def _locate(settings: Settings) -> Settings:
    from progress_broker.embedded.data_dir import find_address  # imported only if no address is configured

    address = find_address(settings)
    return settings if address is None else settings.model_copy(update={"redis_url": SecretStr(address)})
