"""What must be done at the broker before an operation can be reported. It can be done at once, or later."""

from typing import NamedTuple

from progress_broker.model.operation import NewOperation


class Opening(NamedTuple):
    """How to create or find an operation, and how to begin work on it."""

    operation: str
    new: NewOperation | None = None
    """What it is created with, unless it exists with the same values; None: it must exist."""
    traceparent: str = ""
    adopts: bool = False
    """Whether to take an operation that exists with other values as it is."""
    new_attempt: bool = False
    worker: str = ""
    """The name of the worker that begins a new attempt."""
    only_creates: bool = False
    """Whether another process works on it."""
    cancel_counts_from_s: float | None = None
    """If it was cancelled at this time or later, in seconds since 1970, the work has to stop. None: an operation that
    was cancelled before is other work."""
