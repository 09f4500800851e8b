"""A server process, as its supervisor sees it."""

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from pydantic import SecretStr

from progress_broker.embedded.server_process import ending_with_us
from progress_broker.errors import BrokerError, rejection
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings

LONGEST_LINE = 16 * 1024 * 1024
"""The longest line that a process may tell: its metrics."""
_LAST_WORDS_S = 1.0
"""How long to wait for what a process that has ended told last."""

BEAT_S = 2
"""How often a process tells that it is alive."""
SILENT_S = 30
"""How long one that serves may be silent until it is killed: it hangs."""
_PARTS = 3


class End(NamedTuple):
    """How a process ended: a text, how long it served in seconds, and the error that it reported, if any."""

    said: str
    served_s: float | None
    error: BrokerError | None


class Replica:
    """A server process: a new interpreter and not a fork, so that no event loop, thread or connection is shared.

    It has its own process group, so that Ctrl-C reaches it once, through the supervisor, and not also from the
    terminal.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        reloaded: Callable[[], object],
    ) -> None:
        self._process, self._reader, self._writer, self._reloaded = process, reader, writer, reloaded
        self._serving_since: float | None = None
        self._error: BrokerError | None = None
        self.beats = 0
        """How often it has told that it is alive."""
        self._hung = False
        self._first: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """Whether it serves."""
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._numbers = itertools.count(1)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, settings: Settings, given: Mapping[str, Any], listener: socket.socket, reloaded: Callable[[], object]
    ) -> "Replica":
        """Start one on a listening socket; raise `OSError` if the system can't.

        It has the settings, of which some were `given` as options. `reloaded` is called when it has read them again.
        """
        number = listener.fileno()
        ours, theirs = socket.socketpair()
        with ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    # -P: a directory `cli` in the current directory must not shadow ours.
                    *(sys.executable, "-P", "-m", "progress_cli.server.child_main"),
                    stdin=theirs.fileno(),
                    pass_fds=[number],
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    preexec_fn=ending_with_us(),
                )
            undo.callback(process.kill)
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LONGEST_LINE)
            undo.pop_all()
        orders = {"settings": dict(settings), "given": dict(given), "listener": number}
        writer.write(json.dumps(orders, default=_plain).encode() + b"\n")
        return cls(process, reader, writer, reloaded)

    async def serves(self) -> bool:
        """Wait until it serves and return True, or False if it can't serve."""
        if await self._first:
            self._serving_since = time.monotonic()
        return self._serving_since is not None

    def reload(self) -> None:
        """Have it read the settings again."""
        self._order(reload=True)

    async def metrics(self, patience_s: float) -> str | None:
        """Return its metrics, as text; None if it does not tell them in time."""
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        self._order(ask="metrics", n=number)
        try:
            return await asyncio.wait_for(asked, patience_s) or None
        except TimeoutError:
            return None
        finally:
            self._asked.pop(number, None)

    async def ended(self, silent_s: float = SILENT_S) -> End:
        """Wait until it has ended, and return how. Kill it if it serves and is silent for `silent_s` seconds."""
        watching = asyncio.create_task(self._watch(silent_s))
        try:
            code = await self._process.wait()
        finally:
            await end(watching)
        await asyncio.wait([self._reading], timeout=_LAST_WORDS_S)  # an error that it reported while it served
        served_s = None if self._serving_since is None else time.monotonic() - self._serving_since
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if self._hung:
            how = f"was silent for {silent_s:g} s, so it was killed"
        if self._error is not None:
            how = f"{'could not start' if served_s is None else 'had to end'} ({self._error.detail})"
        return End(f"process {self._process.pid} {how}", served_s, self._error)

    async def _watch(self, silent_s: float) -> None:
        """Kill it if it serves and is silent. If it was this process that did not run, one part of the time is lost."""
        silent_parts = 0
        while silent_parts < _PARTS:
            before = self.beats
            await asyncio.sleep(silent_s / _PARTS)
            alive = self._serving_since is None or self.beats != before
            silent_parts = 0 if alive else silent_parts + 1
        self._hung = True
        self.kill()

    async def _read(self) -> None:
        """Receive what it tells, until it has ended."""
        with suppress(OSError, ValueError):
            while line := await self._reader.readline():
                self._received(json.loads(line))
        if not self._first.done():
            self._first.set_result(False)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result("")

    def _received(self, word: Mapping[str, Any]) -> None:
        if (number := word.get("answer")) is not None:
            asked = self._asked.get(number)
            if asked is not None and not asked.done():
                asked.set_result(word["text"])
        elif "alive" in word:
            self.beats += 1
        elif "reloaded" in word:
            self._reloaded()
        else:
            if word["error"]:
                self._error = rejection(word["error"], word["detail"])
            if not self._first.done():
                self._first.set_result(word["error"] is None)

    def _order(self, **words: object) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(words).encode() + b"\n")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to drain and end; a Ctrl-C ends it at once."""
        at_once = (
            number == signal.SIGINT and self._serving_since is not None
        )  # during its start, SIGINT would print a traceback
        self.send(signal.SIGINT if at_once else signal.SIGTERM)

    def kill(self) -> None:
        """Kill it now."""
        self.send(signal.SIGKILL)

    def close(self) -> None:
        """Release it; if it still lives, it is killed."""
        self.kill()
        self._reading.cancel()
        self._writer.close()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
