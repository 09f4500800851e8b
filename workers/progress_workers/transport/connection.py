"""This process's link to a Redis: the clients, the keyspace, and the threads that serve the operations.

There is one link for each set of settings, so usually one in a process; a Redis that is away can't hold up another.
"""

import atexit
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable
from threading import RLock
from typing import Any

from pydantic import SecretStr

from progress_broker.errors import BrokerError, StorageUnavailable
from progress_broker.settings import Settings
from progress_broker.storage.connections import connect, unparsed
from progress_broker.storage.failover import Generation
from progress_broker.storage.keys import Keyspace, meta_key
from progress_broker.storage.protocol_check import check_tls, explained
from progress_broker.storage.schema import META_FIELDS, meta_call, read_meta
from progress_broker.storage.scripts import Call
from progress_workers.core.reporter import Reporter
from progress_workers.transport.heartbeats import Beats
from progress_workers.transport.pipeline import carry, errors_that_may_pass
from progress_workers.transport.sender import Sender
from progress_workers.transport.signal_reader import Signals

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
"""How long leaving a block, or the process, waits for what was reported to be stored."""


class Link:
    """A Redis as this process uses it. Nothing is sent, and no thread started, before there is need."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._keyspace: Keyspace | None = None
        self._known: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._told: weakref.WeakSet[Reporter] = weakref.WeakSet()
        self._begin()

    def _begin(self) -> None:
        self._located: Settings | None = None
        self._commands: Any = None
        self._generation = Generation()
        self._sender = Sender(self.client, self._gone)
        self._beats = Beats(self.client)
        self._signals = Signals(self.client, self._blocking_client, self._beats.look)

    def client(self) -> Any:
        """Return the client for commands; raise `StorageUnavailable` while no address is known."""
        settings = self._settings if self._settings.redis_url is not None else _locate(self._settings)
        located = self._located
        # The embedded Redis may come back at another address.
        if located is None or located.redis_url != settings.redis_url:
            self._commands = connect(settings, generation=self._generation)
            self._located = settings
        return self._commands

    def _blocking_client(self) -> Any:
        settings = self._settings if self._settings.redis_url is not None else _locate(self._settings)
        connection: Any = connect(settings, blocking=True, generation=self._generation)
        return unparsed(connection.client())  # of one connection, which CLIENT UNBLOCK can name

    def keyspace(self) -> Keyspace:
        """Return the keys that all users of this Redis share; raise `SetupError` if our settings disagree."""
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
        # Written only where nothing is there yet: a Redis that takes no writes can be read.
        return known if None not in known else self.run(meta_call(self._settings))

    def run(self, call: Call) -> Any:
        """Run one script now and return its reply; raise `StorageUnavailable` or `StorageFull`."""
        (reply,) = carry(self.client(), [call])
        if isinstance(reply, BrokerError):
            raise reply
        return reply

    def follow(self, reporter: Reporter) -> None:
        """Send for a reporter from now on, and listen for its operation."""
        self._known.add(reporter)
        self.wake(reporter)
        self._signals.nudge()

    def wake(self, reporter: Reporter) -> None:
        """Say that a reporter may have something to send. A reporter calls it by itself."""
        if reporter not in self._sender and not reporter.done:
            self._known.add(reporter)
            self._signals.add(reporter)
            self._beats.add(reporter)
        self._sender.wake(reporter)

    def flush(self, reporters: list[Reporter] | None = None, timeout_s: float = FLUSH_S) -> bool:
        """Wait until what these (or all) were told is stored; return whether it was, within the timeout."""
        return self._sender.flush(self._sender.pending() if reporters is None else reporters, timeout_s)

    def tell_dropped(self) -> bool:
        """Return whether what was said of an operation was dropped, of those that somebody still has; of each once."""
        dropped = {reporter for reporter in list(self._known) if reporter.dropped} - set(self._told)
        self._told.update(dropped)
        return bool(dropped)

    def patience_s(self) -> float:
        """Return how long the end of a block, or of the process, waits until all is stored."""
        return self._sender.patience_s(FLUSH_S)

    def when_stored(self, reporter: Reporter, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, from any thread, once what a reporter was told is stored; return what takes it back."""
        return self._sender.when_stored([reporter], callback)

    def reborn(self) -> None:
        """Start anew in a forked child: the connections and threads are the parent's."""
        self._begin()
        self.tell_dropped()  # those are the parent's to tell
        for reporter in list(self._known):
            reporter.reborn()

    def _gone(self, reporter: Reporter) -> None:
        self._signals.remove(reporter)
        self._beats.remove(reporter)


_links: dict[Settings, Link] = {}
_linking = RLock()


stand_ins: list[Link] = []
"""Links that take the place of every Redis, the last one first: a test's, that records what would be sent."""


def link_to(settings: Settings) -> Link:
    """Return the link to the Redis of these settings."""
    if stand_ins:
        return stand_ins[-1]
    with _linking:
        link = _links.get(settings)
        if link is None:
            link = _links.setdefault(settings, Link(settings))
        return link


def flush(timeout: float = FLUSH_S) -> bool:
    """Wait until all that this process has reported so far is stored; return whether it was, within `timeout` seconds.

    It was not if an operation was deleted, or lost with the Redis that had it; this is told once of each.
    Leaving an operation's block and leaving the process do this by themselves; who ends by `os._exit` has to call it.
    """
    stored = _flush(timeout)
    dropped = [link.tell_dropped() for link in list(_links.values())]
    return stored and not any(dropped)


def _flush(timeout: float) -> bool:
    until = time.monotonic() + timeout
    stored = [link.flush(timeout_s=max(0.0, until - time.monotonic())) for link in list(_links.values())]
    return all(stored)


def _locate(settings: Settings) -> Settings:
    from progress_broker.embedded.data_dir import find_address  # not needed with an address

    address = find_address(settings)
    return settings if address is None else settings.model_copy(update={"redis_url": SecretStr(address)})


def _reborn() -> None:
    global _linking
    _linking = RLock()  # another thread of the parent may have held it
    for link in _links.values():
        link.reborn()
    # A forked child of `multiprocessing` ends by os._exit, past atexit; what it has instead is set up later than this.
    children = sys.modules.get("multiprocessing.util")
    if children is not None:
        children.register_after_fork(flush, lambda _: children.Finalize(None, _flush_at_exit, exitpriority=0))


def _flush_at_exit() -> None:
    # Without those that were lost before, of which the log has told.
    if not _flush(max((link.patience_s() for link in _links.values()), default=0.0)):
        logger.warning("progress that was reported last could not be sent before the process ended")


os.register_at_fork(after_in_child=_reborn)
atexit.register(_flush_at_exit)
