"""Questions to all replicas, and their answers.

A question goes through a feed, which every replica reads anyway, and its body through a key that workers can't write.
The answers come back in a stream of the question's own. So replicas need no port to each other.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Protocol


class Question(StrEnum):
    """What replicas can be asked to tell or to do."""

    STREAMS = "streams"
    """Tell which streams are open."""
    KICK = "kick"
    """End a stream."""
    RELOAD = "reload"
    """Read the settings again."""
    DRAIN = "drain"
    """Send all clients to other replicas."""
    LIMITS = "limits"
    """Read the limits of principals again."""


class Reply(NamedTuple):
    """What one replica answered."""

    replica: str
    body: Mapping[str, Any]


class Replies(NamedTuple):
    """What all replicas answered."""

    answers: Sequence[Reply]
    silent: Sequence[str]
    """The replicas that are present, but did not answer in time."""


class ReplicaCalls(Protocol):
    """Asks all replicas."""

    async def ask(self, question: Question, body: Mapping[str, Any], *, patience_s: float = 2.0) -> Replies:
        """Return the answers of all replicas that are present, at the latest after `patience_s`.

        A replica acts on a question once, also if it is asked through two lanes. Raises `StorageUnavailable` or
        `StorageFull` if no lane takes the question.
        """
