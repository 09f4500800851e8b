"""What a service manager such as systemd is told: that this process is ready, is alive, reloads, or stops.

A service of `Type=notify` is sent datagrams of lines (sd_notify(3)). Without such a manager nothing is told.
"""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Protocol, Self

from progress_broker.runtime.tasks import end

log = logging.getLogger(__name__)

SEND_S = 1
"""How long a message may wait for room in the manager's socket."""
BEATS = 3
"""How often this process tells that it is alive within the time after which it would be killed."""


class Manager(Protocol):
    """Who starts and stops this process, and ends it if it hangs."""

    def stopping(self) -> None:
        """Hear that this process has begun to stop."""

    def reloading(self) -> AbstractContextManager[None]:
        """Hear that this process reads its configuration again in a block."""

    def watching(self, alive: Callable[[], bool]) -> AbstractAsyncContextManager[None]:
        """Hear that it is alive, in a block, while this event loop runs and `alive` says so."""


class ServiceManager:
    """Tells the manager that listens on a socket about this process. `watchdog_s`: how long this process may be silent
    until it is killed; None if it need not tell that it is alive."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # an abstract one
        self.watchdog_s = watchdog_s

    @classmethod
    def taken_from(cls, env: MutableMapping[str, str], pid: int) -> Self:
        """Return the manager that an environment names for the process `pid`.

        It is removed from the environment: no process that this one starts speaks for it.
        """
        address = env.pop("NOTIFY_SOCKET", "")
        period_us, watched = env.pop("WATCHDOG_USEC", ""), env.pop("WATCHDOG_PID", str(pid))
        return cls(address, int(period_us) / 1e6 if period_us.isdecimal() and watched == str(pid) else None)

    def ready(self, status: str = "") -> None:
        """Tell that this process serves. A status is a line for people."""
        self._tell("READY=1", *([f"STATUS={status}"] if status else []))

    def stopping(self) -> None:
        """Tell that this process has begun to stop."""
        self._tell("STOPPING=1", "STATUS=draining: its clients go to other replicas")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Tell that this process reads its configuration again in this block, and is ready after it, whatever came."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            self.ready()

    def watching(self, alive: Callable[[], bool]) -> AbstractAsyncContextManager[None]:
        """Tell in a block that this process is alive, while this event loop runs and `alive` says so."""
        if not self._address or not self.watchdog_s:
            return nullcontext()
        return beating(lambda: self._tell("WATCHDOG=1"), alive, self.watchdog_s / BEATS)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.settimeout(SEND_S)
                to.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the service manager can't be told %s: %s", lines[0], error)


@asynccontextmanager
async def beating(beat: Callable[[], None], alive: Callable[[], bool], every_s: float) -> AsyncIterator[None]:
    """Call `beat` again and again in a block, while the event loop runs and `alive` says so."""

    async def go_on() -> None:
        while True:
            if alive():
                beat()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        await end(task)


NO_MANAGER = ServiceManager("")
"""Nobody, who is told nothing."""
