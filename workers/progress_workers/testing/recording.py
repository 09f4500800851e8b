"""`recording()`: records everything that is reported in a block of a test."""

from types import TracebackType
from typing import Any, Self

from progress_broker.model.payloads import Outcome
from progress_broker.settings import load_settings
from progress_workers.testing.link import RecordingLink, When
from progress_workers.testing.recorded import Logged, RecordedEvent, RecordedOperation
from progress_workers.transport.registry import test_links


class Recording:
    """Everything that is reported in a `with` block. Most properties are about the operation that started first."""

    def __init__(self, *, every: bool = True) -> None:
        self._link = RecordingLink(load_settings(), every=every)

    def __enter__(self) -> Self:
        test_links.append(self._link)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        test_links.remove(self._link)
        self._link.flush()
        if error is None:
            self._link.check_plans()

    @property
    def operations(self) -> dict[str, RecordedOperation]:
        """The operations by id, in the order in which they were created."""
        return dict(self._link.operations)

    @property
    def operation(self) -> RecordedOperation:
        """The operation that started first. Raises `LookupError` if none started."""
        main = self._link.main()
        if main is None:
            raise LookupError("no operation was started: does the code under test call Operation.start or attach?")
        return main

    def of_kind(self, kind: str) -> list[RecordedOperation]:
        """Return the operations of a kind, in the order in which they were created."""
        return [operation for operation in self.operations.values() if operation.snapshot.kind == kind]

    @property
    def events(self) -> list[RecordedEvent]:
        """All events of the first operation, in order."""
        return self.operation.events

    @property
    def progress(self) -> dict[str, Any]:
        """The last progress of the first operation; empty if there was none."""
        return self.operation.progress

    @property
    def progresses(self) -> list[dict[str, Any]]:
        """Every progress of the first operation, in order."""
        return self.operation.progresses

    @property
    def logs(self) -> list[Logged]:
        """The log lines of the first operation."""
        return self.operation.logs

    @property
    def outcome(self) -> Outcome | None:
        """How the first operation ended; None if it has not ended."""
        return self.operation.outcome

    def cancel(self, reason: str | None = None, *, by: str | None = None, when: When | None = None) -> None:
        """Ask the work to stop: now, or as soon as it starts, or after the first event for which `when` is true.

        `cancel("enough", when=lambda operation: operation.progress["current"] == 3)`

        `when` may read values that do not exist yet: a `LookupError` or `TypeError` counts as false. If it never
        becomes true, leaving the block raises `AssertionError`.
        """
        self._link.plan("cancel", when, lambda operation: operation.cancel(reason, by=by))

    def fence(self, *, when: When | None = None) -> None:
        """Let another attempt take over: now, or as soon as the work starts, or by `when`, as in `cancel`."""
        self._link.plan("fence", when, RecordedOperation.fence)

    def signal(self, type: str, data: object = None, *, by: str | None = None, when: When | None = None) -> None:
        """Send a signal to the work: now, or as soon as it starts, or by `when`, as in `cancel`."""
        self._link.plan(f"signal {type!r}", when, lambda operation: operation.signal(type, data, by=by))


def recording(*, every: bool = True) -> Recording:
    """Return a recording, for use in `with`.

    By default it keeps every reported progress, which costs about a millisecond each. With `every=False` it keeps only
    those that would be sent, ten a second: use this for loops with many thousands of steps.
    """
    return Recording(every=every)
