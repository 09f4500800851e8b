"""What was reported about one operation, for tests to examine."""

from typing import Any, NamedTuple, Protocol

import orjson

from progress_broker.model.event import read_entry
from progress_broker.model.operation import NewSignal, Operation
from progress_broker.model.payloads import Outcome


class RecordedEvent(NamedTuple):
    """An event in an operation's log."""

    type: str
    data: Any


class Logged(NamedTuple):
    """A log line of an operation."""

    message: str
    level: str = "info"
    stage: str | None = None


class Recorder(Protocol):
    """Stores what is reported, and can cancel, fence or signal operations as another process would."""

    def snapshot(self, operation: str) -> Operation:
        """Return an operation's snapshot, as people see it."""

    def log_after(self, operation: str, position: bytes) -> list[Any]:
        """Return the entries of an operation's log after a position."""

    def cancel(self, operation: str, reason: str | None, by: str | None) -> None:
        """Cancel an operation."""

    def fence(self, operation: str) -> None:
        """Start another attempt at an operation, so that the code under test gets `Fenced`."""

    def signal(self, operation: str, signal: NewSignal, by: str | None) -> None:
        """Send a signal to an operation's worker."""


class RecordedOperation:
    """What was reported about one operation, and methods to cancel, fence or signal it as somebody else would."""

    def __init__(self, id: str, link: Recorder) -> None:
        self.id = id
        self.events: list[RecordedEvent] = []
        self._link = link
        self._n = 0
        self._position = b"0-0"

    @property
    def snapshot(self) -> Operation:
        """The snapshot of the operation, as clients see it: its kind, title, parent, status and so on."""
        return self._link.snapshot(self.id)

    @property
    def progress(self) -> dict[str, Any]:
        """The last progress that was reported; empty if there was none."""
        return self.progresses[-1] if self.progresses else {}

    @property
    def progresses(self) -> list[dict[str, Any]]:
        """Every progress that was reported, in order."""
        return self.data("progress")

    @property
    def logs(self) -> list[Logged]:
        """The lines of the operation's log."""
        return [Logged(line["message"], line["level"], line.get("stage")) for line in self.data("log")]

    @property
    def outcome(self) -> Outcome | None:
        """How the operation ended; None if it has not ended."""
        ends = self.data("end")
        return Outcome.model_validate(ends[0]) if ends else None

    def data(self, type: str) -> list[Any]:
        """Return the data of all events of a type."""
        return [event.data for event in self.events if event.type == type]

    def cancel(self, reason: str | None = None, *, by: str | None = None) -> None:
        """Ask the work, and the work of its children, to stop."""
        self._link.cancel(self.id, reason, by)

    def fence(self) -> None:
        """Let another attempt take the operation over: the code under test gets `Fenced`."""
        self._link.fence(self.id)

    def signal(self, type: str, data: object = None, *, by: str | None = None) -> None:
        """Send a signal to the work, such as `pause`."""
        self._link.signal(self.id, NewSignal(type=type, data=data), by)

    def read(self) -> None:
        """Read the events that were stored since the last call."""
        for entry in self._link.log_after(self.id, self._position):
            event = read_entry(self.id.encode(), entry)
            if event is not None and event.n > self._n:
                self._n, self._position = event.n, event.position
                self.events.append(RecordedEvent(event.type.decode(), orjson.loads(event.data)))
