"""The options of a stream: its start, how the client wants its events, and the settings that all streams share."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from math import inf
from typing import Any

from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_broker.stream.batching import Types
from progress_broker.stream.frames import PING, Frame
from progress_broker.stream.replay import Replays
from progress_broker.stream.throttle import Cancellable

_AGES = 256
"""How many maximum ages there are. Streams share them: a float of its own would take 32 bytes of an idle stream."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a stream starts: after a position, at the oldest event that is kept, or with a snapshot."""

    position: str | None = None
    beginning: bool = False

    @property
    def kind(self) -> str:
        """Its label in the metrics."""
        if self.beginning:
            return "start"
        return "snapshot" if self.position is None else "resume"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a client wants its events."""

    types: Types = None
    """The event types to send; None sends all. `snapshot` and `end` are always sent."""
    interval_s: float = 0
    """The minimum time between two `progress` events; the newest event of each interval is sent."""
    ping: Frame = PING
    children: bool = False
    """Whether to send the state of the operation's children, too."""
    holder: Any = None
    """The owner of the stream, so that all streams of one owner can be found and closed."""
    deadline: float = inf
    """When the stream must end, by the hub's clock: for example because the caller's token expires."""
    first: tuple[Frame, ...] = ()
    """Frames to send before all others."""
    says_live: bool = True
    """Whether a client that resumes is told when it has all that it missed."""
    connection: str = ""
    """The name of its connection, if it has one. The connection may carry other streams, too."""


ALL = Delivery()


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """The settings that all streams share. Times are in seconds; `clock` and `call_later` can be replaced in tests."""

    ping_s: float
    stuck_timeout_s: float
    max_age_s: Callable[[], float]
    retry_ms: Callable[[], int]
    clock: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    on_close: Callable[[Any, str], None]
    """Called with the stream and the reason when the stream closes."""
    tally: Tally = field(default_factory=Tally)
    replays: Replays = field(default_factory=Replays)
    replica: str = ""
    """A random name of this replica. The names of its connections begin with it."""


def connection_name(replica: str, number: int) -> str:
    """Return the name of a connection. It is unique over all replicas."""
    return f"{replica}-{number}"


def stream_policy(
    settings: Settings, clock: Callable[[], float], on_close: Callable[[Any, str], None], tally: Tally, replica: str
) -> StreamPolicy:
    """Return the shared settings. Some times are randomized, so that clients do not reconnect at the same moment."""
    ages_s = cycle([settings.stream_max_age_s * random.uniform(0.9, 1) for _ in range(_AGES)])
    return StreamPolicy(
        ping_s=settings.ping_s,
        stuck_timeout_s=settings.stuck_timeout_s,
        max_age_s=ages_s.__next__,
        retry_ms=lambda: round(settings.retry_ms * random.uniform(0.5, 1.5)),
        clock=clock,
        call_later=lambda delay_s, run: asyncio.get_running_loop().call_later(delay_s, run),
        on_close=on_close,
        tally=tally,
        replays=Replays(settings.ring_bytes // 2),
        replica=replica,
    )
