"""A server process, as its supervisor sees it."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

from pydantic import SecretStr

from progress_broker.embedded.server_process import ending_with_us
from progress_broker.errors import BrokerError, rejection
from progress_broker.settings import Settings


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
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._serving_since: float | None = None
        self._error: BrokerError | None = None

    @classmethod
    async def start(cls, settings: Settings, listener: socket.socket) -> "Replica":
        """Start one on a listening socket; raise `OSError` if the system can't."""
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
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            undo.pop_all()
        orders = {"settings": dict(settings), "listener": number}
        writer.write(json.dumps(orders, default=_plain).encode() + b"\n")
        return cls(process, reader, writer)

    async def serves(self) -> bool:
        """Wait until it serves and return True, or False if it can't serve."""
        word = await self._heard()
        if word["error"] is None:
            self._serving_since = time.monotonic()
        return self._serving_since is not None

    async def ended(self) -> End:
        """Wait until it has ended, and return how."""
        code = await self._process.wait()
        if self._error is None:
            await self._heard()  # an error that it reported while it served
        served_s = None if self._serving_since is None else time.monotonic() - self._serving_since
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        if self._error is not None:
            how = f"{'could not start' if served_s is None else 'had to end'} ({self._error.detail})"
        return End(f"process {self._process.pid} {how}", served_s, self._error)

    async def _heard(self) -> dict[str, Any]:
        """Return its next message, and keep the error in it."""
        try:
            word: dict[str, Any] = json.loads(await self._reader.readline() or b'{"error": ""}')
        except OSError:
            word = {"error": ""}
        if word["error"]:
            self._error = rejection(word["error"], word["detail"])
        return word

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to drain and end; a Ctrl-C ends it at once."""
        at_once = (
            number == signal.SIGINT and self._serving_since is not None
        )  # during its start, SIGINT would print a traceback
        self._send(signal.SIGINT if at_once else signal.SIGTERM)

    def kill(self) -> None:
        """Kill it now."""
        self._send(signal.SIGKILL)

    def close(self) -> None:
        """Release it; if it still lives, it is killed."""
        self.kill()
        self._writer.close()

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
