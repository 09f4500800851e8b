"""Where `replay` sends events: to standard output, or to a new operation."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from math import inf

from progress_broker.replay.player import Sink
from progress_broker.replay.recording import Recorded
from progress_broker.transfer.files.local import reader_of
from progress_broker.transfer.format import ExportedOperation
from progress_broker.transfer.republishing import entries, new_operation
from progress_client.backend import Backend


class Envelopes:
    """One event a line, as `tail --json` prints it."""

    async def send(self, events: Sequence[Recorded]) -> None:
        """Print events."""
        sys.stdout.buffer.write(b"".join([recorded.frame.envelope + b"\n" for recorded in events]))
        sys.stdout.buffer.flush()


class ToOperation:
    """Publishes events to an operation that is created like the first one."""

    def __init__(self, backend: Backend, id: str, first: ExportedOperation) -> None:
        self._backend, self._id, self._first = backend, id, first
        self._producer = f"replay-{first.id}"[:64]
        self._created = False

    async def send(self, events: Sequence[Recorded]) -> None:
        """Publish events."""
        if not self._created:
            await self._backend.create(new_operation(self._first, self._id))
            self._created = True
        if some := list(entries([recorded.event for recorded in events], self._producer)):
            await self._backend.publish(self._id, some)


class Stepwise:
    """Passes on one event for each line that is entered; at the end of the input, all others."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._read: Callable[[int], Awaitable[bytes]] | None = None
        self._lines = 0.0

    async def send(self, events: Sequence[Recorded]) -> None:
        """Pass on events."""
        for recorded in events:
            await self._enter()
            await self._sink.send([recorded])

    async def _enter(self) -> None:
        """Wait for a line."""
        if self._read is None:
            self._read = await reader_of(sys.stdin.buffer)
        while self._lines < 1:
            chunk = await self._read(4096)
            self._lines += chunk.count(b"\n") if chunk else inf
        self._lines -= 1
