"""What can be said when an operation is created, started or joined. Durations are in seconds.

What it is created with is what `progress_broker.model.operation.NewOperation` takes; a test holds the two together.
"""

from collections.abc import Iterable
from enum import Enum
from typing import TypedDict

from progress_broker.settings import Settings


class Default(Enum):
    """Stands for what the settings say."""

    LEASE = "PROGRESS_LEASE_S"


class Description(TypedDict, total=False):
    """What can be said of any operation that is new, beside its kind and what it is a part of."""

    title: str | None
    """What people are shown."""
    owner: str | None
    """Whose it is."""
    tags: Iterable[str]
    """What it is found by."""
    weight: float
    """How much of its parent it is, compared with the other children; 1 by default."""
    lease_s: float | Default | None
    """How long the worker may be silent before it counts as stalled; None for ever; by default as the server says."""


class CreateOptions(Description, total=False):
    """What can be said when an operation is created."""

    id: str | None
    """Made up unless given."""
    parent: str | None
    """The operation it belongs to."""
    settings: Settings | None
    """Which Redis, and the limits; by default from the environment."""


class ReportOptions(TypedDict, total=False):
    """What can be said of how an operation is reported."""

    worker: str | None
    """Who works on it, as people are shown; by default `host:pid`."""
    interval_s: float
    """Progress is sent no more often; 0.1 by default."""
    new_attempt: bool
    """Whether this is a new attempt: the earlier one is fenced, and the count begins anew. Not on a pending one."""


class AttachOptions(ReportOptions, total=False):
    """What can be said when an operation is joined."""

    settings: Settings | None
    ends: bool
    """Whether leaving the block ends the operation, the default; False is for one of several processes on it.

    Of these let one count, as each tells the progress as it sees it; or give each a child of its own.
    """


class ChildOptions(Description, ReportOptions, total=False):
    """What can be said when a part of an operation is started."""

    id: str | None
    total: float | None
    unit: str | None


class StartOptions(ChildOptions, CreateOptions, total=False):
    """What can be said when an operation is started."""
