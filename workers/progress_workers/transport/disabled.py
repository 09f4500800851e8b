"""The link of a process whose reporting is turned off: nothing is sent, and nothing runs in the background."""

from collections.abc import Callable

from progress_broker.model.publish import Publish, Published
from progress_workers.core.reporter import Reporter
from progress_workers.transport.link import FLUSH_S, Link


class DisabledLink(Link):
    """A link that ends nowhere. Its operations behave as if they were reported and nobody cancelled them."""

    def publish(self, publish: Publish) -> Published:
        """Store nothing."""
        return Published("0-0", 0)

    def open(self, reporter: Reporter, *, required: bool) -> None:
        """Let a reporter ignore all reports."""
        reporter.opening = None
        reporter.discard(told=False)

    def wake(self, reporter: Reporter) -> None:
        """Do nothing."""

    def flush(self, reporters: list[Reporter] | None = None, timeout_s: float = FLUSH_S) -> bool:
        """Return True: there is nothing to send."""
        return True

    def when_stored(self, reporter: Reporter, callback: Callable[[], None]) -> Callable[[], object]:
        """Call back at once."""
        callback()
        return lambda: None
