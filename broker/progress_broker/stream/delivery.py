"""The terms of a subscription: where its client begins, how it wants its events, and what the hub gives to all."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings
from progress_broker.stream.batching import Types
from progress_broker.stream.frames import PING, Frame
from progress_broker.stream.throttle import Cancellable


@dataclass(frozen=True, slots=True)
class Start:
    """Where a client wants to begin: after a position, at the start of what is kept, or with a snapshot."""

    position: str | None = None
    beginning: bool = False

    @property
    def kind(self) -> str:
        """What it is called where streams are counted."""
        if self.beginning:
            return "start"
        return "snapshot" if self.position is None else "resume"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a client wants its events."""

    types: Types = None
    """Which types it wants; None wants all. `snapshot` and `end` always pass."""
    interval_s: float = 0
    """The least time between two `progress` events; the newest of each interval is sent."""
    ping: Frame = PING
    children: bool = False
    """Whether it wants to be told where the operation's children stand, too."""
    holder: Any = None
    """Whose stream it is, for who has to find the streams of somebody."""
    deadline: float = inf
    """When it ends, by the hub's clock: its holder may watch no longer."""
    first: tuple[Frame, ...] = ()
    """What it is sent before all else."""
    connection: str = ""
    """What its connection is called, if that has a name: it may carry others, too."""


ALL = Delivery()


@dataclass(frozen=True, slots=True)
class Terms:
    """What all subscriptions are given: times in seconds, the clock and the timer they are measured with."""

    ping_s: float
    stuck_timeout_s: float
    max_age_s: Callable[[], float]
    retry_ms: Callable[[], int]
    clock: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    on_close: Callable[[Any, str], None]
    """Called with the subscription and the reason of its end."""
    tally: Tally = field(default_factory=Tally)


def terms_of(
    settings: Settings, clock: Callable[[], float], on_close: Callable[[Any, str], None], tally: Tally
) -> Terms:
    """Return what the settings give to all. Times that many would share are spread, so that they don't come at once."""
    return Terms(
        ping_s=settings.ping_s,
        stuck_timeout_s=settings.stuck_timeout_s,
        max_age_s=lambda: settings.stream_max_age_s * random.uniform(0.9, 1),
        retry_ms=lambda: round(settings.retry_ms * random.uniform(0.5, 1.5)),
        clock=clock,
        call_later=lambda delay_s, run: asyncio.get_running_loop().call_later(delay_s, run),
        on_close=on_close,
        tally=tally,
    )
