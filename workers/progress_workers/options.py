"""What can be said when an operation is created, started or joined."""

from collections.abc import Iterable
from enum import Enum
from typing import TypedDict

from progress_broker.settings import Settings


class Default(Enum):
    """Stands for what the settings say."""

    LEASE = "PROGRESS_LEASE_S"


class AttachOptions(TypedDict, total=False):
    """What can be said when an operation is joined. Durations are in seconds."""

    settings: Settings | None
    """Which Redis, and the limits; by default from the environment."""
    worker: str | None
    """Who works on it, as people are shown; by default `host:pid`."""
    interval_s: float
    """Progress is sent no more often; 0.1 by default."""
    new_attempt: bool
    """Whether this is a new attempt: the earlier one is fenced, and the count begins anew. Not on a pending one."""
    ends: bool
    """Whether leaving the block ends the operation, the default; False is for one of several processes on it.

    Of these let one count, as each tells the progress as it sees it; or give each a child of its own.
    """


class _Words(TypedDict, total=False):
    id: str | None
    title: str | None
    owner: str | None
    tags: Iterable[str]
    weight: float
    """How much of its parent it is, compared with the other children; 1 by default."""
    lease_s: float | Default | None
    """How long the worker may be silent before it counts as stalled; None for ever; by default as the server says."""


class CreateOptions(_Words, total=False):
    """What can be said when an operation is created. Durations are in seconds."""

    parent: str | None
    settings: Settings | None


class ChildOptions(_Words, total=False):
    """What can be said when a part of an operation is started. Durations are in seconds."""

    total: float | None
    unit: str | None
    new_attempt: bool
    worker: str | None
    interval_s: float


class StartOptions(ChildOptions, total=False):
    """What can be said when an operation is started. Durations are in seconds."""

    parent: str | None
    settings: Settings | None
