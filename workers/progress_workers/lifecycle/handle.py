"""An operation that can be reported, as the functions that start it return it."""

from typing import NamedTuple

from progress_broker.settings import Settings
from progress_workers.core.reporter import Reporter
from progress_workers.transport.link import Link


class Handle(NamedTuple):
    """An operation that can be reported."""

    link: Link
    reporter: Reporter
    settings: Settings
    end_on_exit: bool
    end_on_sigterm: bool = True
    """Whether SIGTERM ends it. A queue decides itself what becomes of the task of a worker that is asked to stop."""
