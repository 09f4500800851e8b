"""Several server processes on one address, each with its own socket. A process that dies or hangs is replaced.

The supervisor keeps the sockets open. So connections that wait in a dead process' socket are not reset, but served by
its replacement.
"""

import asyncio
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from progress_broker.errors import BrokerError, SetupError
from progress_broker.runtime.backoff import Backoff
from progress_broker.settings import Settings, load_settings
from progress_cli.server.child import End, Replica
from progress_cli.server.hang_up import hang_up_reloads
from progress_cli.server.metrics_port import MetricsPort
from progress_server.observability.aggregation import Totals
from progress_server.observability.metrics import PREFIX
from progress_server.server.config import LEAVE_S
from progress_server.server.notify import NO_MANAGER, ServiceManager
from progress_server.server.reload import RELOADED
from progress_server.server.sockets import leave_to_others

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.1
MOST_DELAY_S = 5
STEADY_S = 10
"""A process that served longer than this was healthy: its replacement starts without much delay."""
METRICS_S = 1.0
"""How long a process may take to tell its metrics."""
_READY = re.compile(rf"^{PREFIX}ready(?:{{[^}}]*}})? 1(?:\.0)?$", re.MULTILINE)
GRACE_S = 2
"""How many seconds beyond its drain time a process may take to stop before it is killed."""


def supervise(
    settings: Settings,
    given: Mapping[str, Any],
    listeners: Sequence[socket.socket],
    serving: Callable[[], None],
    manager: ServiceManager = NO_MANAGER,
) -> None:
    """Keep a process on each listener until stopped. Call `serving` once all of them serve. The listeners are closed.

    If no process can start, raise the error of one of them.
    """
    asyncio.run(Supervisor(settings, given, listeners, serving, manager).run())
    signal.raise_signal(
        signal.SIGTERM
    )  # repeated for `until_stopped`: the rest of the shutdown must not be interrupted


class Supervisor:
    """Starts the processes, notices when they end, and stops them. It waits for events and never polls."""

    def __init__(
        self,
        settings: Settings,
        given: Mapping[str, Any],
        listeners: Sequence[socket.socket],
        serving: Callable[[], None],
        manager: ServiceManager,
    ) -> None:
        self._given = given
        self._totals = Totals()
        self._settings, self._listeners, self._serving, self._manager = settings, listeners, serving, manager
        self._replicas: set[Replica] = set()
        self._unserved = set(listeners)
        self._failures: dict[socket.socket, End] = {}
        """How the process of each listener ended, for listeners without a serving process."""
        self._error: BrokerError | None = None
        self._begun = asyncio.Event()
        """Set when a process has served, or when none will."""
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Supervise until stopped by a signal, or until no process can start; then raise that error."""
        # It lives as long as it can replace and stop its processes, whatever they wait for.
        with _signals_call(self.stop), hang_up_reloads(self.reload, self.stop):
            port = MetricsPort(self._metrics, self._is_ready).listening(self._settings)
            async with self._manager.watching(lambda: True), port:
                await asyncio.gather(*(self._keep(listener) for listener in self._listeners))
        if self._error is not None:
            raise self._error

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask all processes to drain and end. If they take too long, or on a second call, kill them."""
        if self._stopping.is_set():
            self._kill()
            return
        self._stopping.set()
        self._begun.set()
        self._manager.stopping()
        for listener in self._listeners:
            listener.close()  # also here, so that new connections are refused and do not wait
        for replica in self._replicas:
            replica.stop(number)
        asyncio.get_running_loop().call_later(self._settings.drain_s + LEAVE_S + GRACE_S, self._kill)

    def reload(self) -> None:
        """Have all processes read the settings again, and their replacements start with these."""
        with self._manager.reloading():
            if self._reread():
                for replica in self._replicas:
                    replica.reload()

    async def _metrics(self) -> str:
        """Return the metrics of all processes together. One that does not answer counts as it was last."""
        replicas = tuple(self._replicas)
        texts = await asyncio.gather(*(replica.metrics(METRICS_S) for replica in replicas))
        for replica, text in zip(replicas, texts, strict=True):
            if text is not None and replica in self._replicas:
                self._totals.add(replica, text)
        return self._totals.text()

    async def _is_ready(self) -> bool:
        """Return whether a process is ready."""
        texts = await asyncio.gather(*(replica.metrics(METRICS_S) for replica in tuple(self._replicas)))
        return any(_READY.search(text) for text in texts if text is not None)

    def _reread(self) -> bool:
        """Read the settings that replacements start with again; return whether they can be used."""
        try:
            found = load_settings(**self._given)
        except SetupError as error:
            log.error("the settings were not reloaded, and nothing has changed: %s", error.detail)
            return False
        self._settings = self._settings.model_copy(update={name: getattr(found, name) for name in RELOADED})
        return True

    def _kill(self) -> None:
        for replica in self._replicas:
            replica.kill()

    async def _keep(self, listener: socket.socket) -> None:
        """Keep a process serving on this listener: start a new one when it ends."""
        backoff = Backoff(FIRST_DELAY_S, MOST_DELAY_S)
        while not self._stopping.is_set():
            end = await self._live(listener)
            if not self._begun.is_set() or end.error is not None:
                await self._failed(listener, end)
            if self._stopping.is_set():
                return
            if end.served_s is not None and end.served_s > STEADY_S:
                backoff.succeeded()
            if backoff.failing:
                leave_to_others(listener)
            delay_s = backoff.failed()
            log.warning("%s; a replacement starts in %.1f s", end.said, delay_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _live(self, listener: socket.socket) -> End:
        """Run one process from its start to its end."""
        try:
            replica = await Replica.start(self._settings, self._given, listener, self._reread)
        except OSError as error:
            return End(f"a process can't be started ({error})", None, None)
        self._replicas.add(replica)
        try:
            if self._stopping.is_set():
                replica.stop()
            if await replica.serves():
                self._serves(listener)
            return await replica.ended()
        finally:
            self._replicas.remove(replica)
            self._totals.ended(replica)
            replica.close()

    def _serves(self, listener: socket.socket) -> None:
        self._begun.set()
        self._failures.pop(listener, None)
        if listener in self._unserved:
            self._unserved.remove(listener)
            if not self._unserved:
                self._serving()

    async def _failed(self, listener: socket.socket, end: End) -> None:
        """Wait until it is known whether any process can start. If none can, stop everything with their error.

        A process that started while Redis was unavailable may find out later that it can never serve.
        """
        self._failures[listener] = end
        if len(self._failures) == len(self._listeners):
            errors = [failure.error for failure in self._failures.values() if failure.error is not None]
            self._error = errors[0] if errors else SetupError(f"no server process keeps running: {end.said}")
            self.stop()
        await self._begun.wait()


@contextmanager
def _signals_call(stop: Callable[[int], None]) -> Iterator[None]:
    """Let the event loop handle the signals that end this process, and restore them afterwards."""
    loop = asyncio.get_running_loop()
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    for each in before:
        loop.add_signal_handler(each, stop, each)
    try:
        yield
    finally:
        for each, handler in before.items():
            loop.remove_signal_handler(each)
            signal.signal(each, handler)
