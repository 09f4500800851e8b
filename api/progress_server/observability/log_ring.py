"""The newest lines of this server's log, for operators who look on. Secrets are redacted, as in the log itself."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from progress_broker.errors import AtCapacity
from progress_server.observability.logs import REDACTION

LINES = 1_000
"""How many lines are kept, and how many may wait for one who looks on; the oldest of those are dropped."""
MOST_LISTENERS = 10
LOGGERS = ("progress_broker", "progress_server", "progress_cli", "uvicorn")
"""The loggers whose lines are kept: ours, also where the server is mounted in an app with loggers of its own."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

Line = dict[str, Any]


class LogRing(logging.Handler):
    """Keeps lines of the log, and passes them on to those who look on. It belongs to one event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(REDACTION)
        self._lines: deque[Line] = deque(maxlen=LINES)
        self.listeners: set[_Listener] = set()
        """Those who look on."""

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Receive the lines of the log within the block."""
        self._loop = asyncio.get_running_loop()
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)
        try:
            yield
        finally:
            for name in LOGGERS:
                logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line. Any thread may call it."""
        try:
            line = _line(record)
        except Exception:  # what a line is about can be any object
            self.handleError(record)
            return
        self._lines.append(line)
        if self.listeners:
            self._loop.call_soon_threadsafe(self._pass_on, line)

    def _pass_on(self, line: Line) -> None:
        for listener in self.listeners:
            listener.add(line)

    async def follow(self, last: int, wait_s: float, *, on: bool = True) -> AsyncGenerator[Line | None]:
        """Yield the `last` lines and, with `on`, all that follow; None after `wait_s` without one.

        Raises `AtCapacity` if too many look on.
        """
        if len(self.listeners) >= MOST_LISTENERS:
            raise AtCapacity(f"{MOST_LISTENERS} others look at this server's log: close one", retry_s=10)
        listener = _Listener()
        for line in list(self._lines)[-last:] if last else ():
            listener.add(line)
        self.listeners.add(listener)
        try:
            while on or listener.has_lines:
                yield await listener.next(wait_s)
        finally:
            self.listeners.discard(listener)


class _Listener:
    """Lines that wait for one who looks on."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque(maxlen=LINES)
        self._any = asyncio.Event()

    @property
    def has_lines(self) -> bool:
        return bool(self._lines)

    def add(self, line: Line) -> None:
        self._lines.append(line)
        self._any.set()

    async def next(self, wait_s: float) -> Line | None:
        if not self._lines:
            self._any.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._any.wait()
            except TimeoutError:
                return None
        return self._lines.popleft()


def _line(record: logging.LogRecord) -> Line:
    line: Line = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
    }
    fields = {name: value for name, value in vars(record).items() if name not in _OWN and name not in line}
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    return line | {
        name: value if isinstance(value, str | int | float | None) else str(value) for name, value in fields.items()
    }
