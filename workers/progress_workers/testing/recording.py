"""What is reported in a block of a test."""

from types import TracebackType
from typing import Any, Self

from progress_broker.model.payloads import Outcome
from progress_broker.settings import load_settings
from progress_workers.testing.link import RecordingLink, When
from progress_workers.testing.recorded import Logged, RecordedEvent, RecordedOperation
from progress_workers.transport.registry import stand_ins


class Recording:
    """What is reported in a `with` block. What it tells of one operation, it tells of the first that began."""

    def __init__(self, *, every: bool = True) -> None:
        self._link = RecordingLink(load_settings(), every=every)

    def __enter__(self) -> Self:
        stand_ins.append(self._link)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stand_ins.remove(self._link)
        self._link.flush()
        if error is None:
            self._link.check_plans()

    @property
    def operations(self) -> dict[str, RecordedOperation]:
        """The operations by their ids, in the order they were created in."""
        return dict(self._link.operations)

    @property
    def operation(self) -> RecordedOperation:
        """The operation that began first. Raises `LookupError` if none did."""
        main = self._link.main()
        if main is None:
            raise LookupError("no operation was begun: is there an Operation.start or attach in what was called?")
        return main

    def of_kind(self, kind: str) -> list[RecordedOperation]:
        """Return the operations of a kind, in the order they were created in."""
        return [operation for operation in self.operations.values() if operation.snapshot.kind == kind]

    @property
    def events(self) -> list[RecordedEvent]:
        """Its events, of all types, in order."""
        return self.operation.events

    @property
    def progress(self) -> dict[str, Any]:
        """Its last progress; empty if there was none."""
        return self.operation.progress

    @property
    def progresses(self) -> list[dict[str, Any]]:
        """Each of its progresses, in order."""
        return self.operation.progresses

    @property
    def logs(self) -> list[Logged]:
        """The lines of its log."""
        return self.operation.logs

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; None if it did not."""
        return self.operation.outcome

    def cancel(self, reason: str | None = None, *, by: str | None = None, when: When | None = None) -> None:
        """Ask the work to stop: at once, or as soon as it begins, or after the first event with which `when` is true.

        `cancel("enough", when=lambda operation: operation.progress["current"] == 3)`

        What `when` asks for may not be there yet. If it was never true, leaving the block raises `AssertionError`.
        """
        self._link.plan(when, lambda operation: operation.cancel(reason, by=by))

    def fence(self, *, when: When | None = None) -> None:
        """Have another attempt take it over: at once, or as soon as it begins, or `when`, as with `cancel`."""
        self._link.plan(when, RecordedOperation.fence)

    def signal(self, type: str, data: object = None, *, by: str | None = None, when: When | None = None) -> None:
        """Send the work a signal: at once, or as soon as it begins, or `when`, as with `cancel`."""
        self._link.plan(when, lambda operation: operation.signal(type, data, by=by))


def recording(*, every: bool = True) -> Recording:
    """Return a recording, to be entered with `with`.

    It keeps every progress reported, at about a millisecond each; unless `every`, those that would be sent, ten a
    second, which is for loops of many thousands.
    """
    return Recording(every=every)
