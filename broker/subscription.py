"""A subscription: one client's place in one operation's log. One idea serves resume, hand-over and slow clients.

It is a position and a mode. *Catching up*, it pulls frames from its channel, page by page, as fast as its outlet takes
them; *live*, the channel hands it each new frame. It holds no frames: when the outlet is full it lets go and later
catches up from where it stands, so memory is bounded and nothing is lost. No I/O happens here, and no clock is read
that was not handed in.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from broker.events import PING, Frame, opening_frame, reconnect_frame
from broker.outlet import NoOutlet, Outlet

CONFLATE_OVER = 32
"""A slow client this many frames behind is sent the newest of each run of `progress` instead of all."""

PROGRESS, END, SNAPSHOT = b"progress", b"end", b"snapshot"


class Mode(Enum):
    """What a subscription does with a new frame."""

    AWAITING = "awaiting"  # the operation does not exist yet
    CATCHING_UP = "catching up"
    LIVE = "live"
    CLOSED = "closed"


class Source(Protocol):
    """Where a subscription gets frames from: its channel."""

    @property
    def loaded(self) -> bool:
        """Whether the recent frames are known; when they come to be, `Subscription.pump` is called."""

    def after(self, n: int) -> Sequence[Frame] | None:
        """Return the frames after the n-th, none if there are none yet, or None if they are no longer at hand."""

    def read_page(self, subscription: "Subscription") -> None:
        """Read older frames after the subscription's position, and call `take_page`."""

    def read_snapshot(self, subscription: "Subscription", reset: str | None) -> None:
        """Read the operation, and call `take_snapshot`."""

    def leave(self, subscription: "Subscription") -> None:
        """Forget the subscription."""


class Cancellable(Protocol):
    """A timer that is running."""

    def cancel(self) -> None:
        """Stop it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a client wants its events."""

    types: frozenset[bytes] | None = None
    """Which types it wants; None wants all. `snapshot` and `end` always pass."""
    interval_s: float = 0
    """The least time between two `progress` events; the newest of each interval is sent."""
    ping: Frame = PING


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscription is given: times in seconds, the clock and the timer they are measured with."""

    ping_s: float
    max_age_s: float
    stuck_timeout_s: float
    retry_ms: Callable[[], int]
    clock: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Cancellable]
    on_close: Callable[["Subscription", str], None]


def conflate(frames: Iterable[Frame]) -> list[Frame]:
    """Return the frames without each `progress` that another follows directly: state, of which the newest is enough."""
    kept: list[Frame] = []
    for frame in frames:
        if kept and frame.type == PROGRESS and kept[-1].type == PROGRESS:
            kept[-1] = frame
        else:
            kept.append(frame)
    return kept


class Subscription:
    """One client's place in one operation's log.

    Its maker places it with `begin`, gives it its way out with `attach`, and calls `drained` and `close` from there.
    """

    __slots__ = (
        "_delivery",
        "_expires_at",
        "_first",
        "_full_since",
        "_has_room",
        "_held",
        "_outlet",
        "_overtaken",
        "_reading",
        "_sent_at",
        "_slow",
        "_source",
        "_terms",
        "_timer",
        "bucket",
        "mode",
        "n",
        "position",
    )

    def __init__(self, source: Source, delivery: Delivery, terms: Terms) -> None:
        self.n = 0
        self.position = b"0-0"
        self.mode = Mode.CATCHING_UP
        self.bucket = 0
        self._source = source
        self._delivery = delivery
        self._terms = terms
        self._outlet: Outlet = NoOutlet()
        self._first: Sequence[Frame] = ()
        self._has_room = False
        self._full_since: float | None = None
        self._reading = False  # a page or a snapshot has been asked for
        self._overtaken: str | None = None  # why what is being read is of no use
        self._slow = False  # it has filled its outlet since it was last live
        self._held: Frame | None = None  # progress that waits for its interval
        self._sent_at = float("-inf")
        self._timer: Cancellable | None = None
        self._expires_at = float("inf")

    # Placing it

    def begin(self, n: int, position: bytes, first: Sequence[Frame] = ()) -> None:
        """Stand after the n-th event, and send `first` before all else."""
        self.n, self.position, self._first = n, position, first

    def wait(self) -> None:
        """Stand before an operation that does not exist yet; its snapshot comes when it does."""
        if self.mode is not Mode.CLOSED:  # as it may be, if the hub drained meanwhile
            self.mode = Mode.AWAITING

    def attach(self, outlet: Outlet) -> None:
        """Open the way out."""
        if self.mode is Mode.CLOSED:  # the hub closed while the response was on its way
            outlet.close()
            return
        self._outlet, self._has_room, self._full_since = outlet, True, None
        self._expires_at = self._terms.clock() + self._terms.max_age_s
        self._write(opening_frame(self._terms.retry_ms()))
        first, self._first = self._first, ()
        for frame in first:
            if frame.type == SNAPSHOT:
                self._write(frame)
            elif self._has_room and frame.n > self.n:
                self._send(frame)
        self.pump()

    # What the channel calls

    def offer(self, frame: Frame) -> None:
        """Take a new frame of the operation, if it is the next; catch up if there is a hole; ignore a repeat."""
        if self.mode is Mode.LIVE:
            if frame.n == self.n + 1:
                self._send(frame)
            elif frame.n > self.n:
                self.mode = Mode.CATCHING_UP
                self.pump()
        elif self.mode is Mode.AWAITING:
            self.mode = Mode.CATCHING_UP
            self.reset(None)

    def reset(self, reason: str | None) -> None:
        """Ask for a snapshot to go on from: history can't be replayed for this reason, or None when it just begins."""
        if self.mode is Mode.CLOSED:
            return
        if self._reading:  # what is being read may be from before this
            self._overtaken = reason
            return
        self.mode = Mode.CATCHING_UP
        self._reading = True
        self._source.read_snapshot(self, reason)

    def take_page(self, frames: Sequence[Frame], reset: str | None = None) -> None:
        """Take the page that was asked for, or why there is none."""
        if self._arrived():
            return
        if reset is None and frames and frames[-1].n > self.n:
            self._take(frames)
            self.pump()
        else:  # a page that leads nowhere is a log that does not hold what it should
            self.reset(reset or "lost")

    def take_snapshot(self, frame: Frame, *, done: bool) -> None:
        """Take the snapshot that was asked for. That of an ended operation is followed by its `end`."""
        if self._arrived():
            return
        self._drop_held()
        self.n, self.position = frame.n - done, frame.position
        if isinstance(self._outlet, NoOutlet):
            self._first = (frame,)  # to be sent when there is a way out
        else:
            self._write(frame)
        self.pump()

    def pump(self) -> None:
        """Catch up as far as the outlet has room; go live when there is nothing left."""
        while self.mode is Mode.CATCHING_UP and self._has_room and not self._reading and self._source.loaded:
            frames = self._source.after(self.n)
            if frames is None:
                self._reading = True
                self._source.read_page(self)
            elif frames:
                self._take(frames)
            else:
                self.mode = Mode.LIVE
                self._slow = False

    # What the outlet's side calls

    def drained(self) -> None:
        """Go on: the outlet has room again."""
        if not self._has_room and self.mode is not Mode.CLOSED:
            self._has_room, self._full_since = True, None
            self.pump()

    def close(self, reason: str = "client", *, reconnect: bool = False) -> None:
        """End it, once. With `reconnect` the client is told why, and comes back with its position."""
        if self.mode is Mode.CLOSED:
            return
        self.mode = Mode.CLOSED
        self._drop_held()
        if reconnect:
            self._outlet.write(reconnect_frame(reason, self._terms.retry_ms()))
        self._outlet.close()
        self._let_go(reason)

    def give_up(self) -> None:
        """Stop awaiting an operation that has not appeared."""
        if self.mode is Mode.AWAITING:
            self.close("not-found", reconnect=True)

    # What the wheel calls

    def tick(self, now: float) -> float | None:
        """Ping; end it when it is too old, or when its client takes nothing. Return when to tick next."""
        if self.mode is Mode.CLOSED:
            return None
        if now >= self._expires_at:
            self.close("max-age", reconnect=True)
            return None
        if self._full_since is None:
            self._write(self._delivery.ping)
        elif now - self._full_since >= self._terms.stuck_timeout_s:
            self.mode = Mode.CLOSED
            self._drop_held()
            self._outlet.abort()
            self._let_go("stuck")
            return None
        return min(self._terms.ping_s, self._expires_at - now)

    # Within

    def _arrived(self) -> bool:
        """Note that a read has come back; return whether it is of no use any more."""
        self._reading = False
        reason, self._overtaken = self._overtaken, None
        if reason is not None:
            self.reset(reason)
        return reason is not None or self.mode is Mode.CLOSED

    def _take(self, frames: Sequence[Frame]) -> None:
        for frame in conflate(frames) if self._slow and len(frames) > CONFLATE_OVER else frames:
            if self.mode is Mode.CLOSED or not self._has_room:
                return
            if frame.n > self.n:
                self._send(frame)

    def _send(self, frame: Frame) -> None:
        self.n, self.position = frame.n, frame.position
        delivery = self._delivery
        if frame.type == END:
            self._release()
            self._outlet.write(frame)
            self.close("ended")
        elif delivery.types is not None and frame.type not in delivery.types:
            pass
        elif delivery.interval_s and frame.type == PROGRESS:
            self._hold(frame)
        else:
            if self._held is not None:
                self._release()  # early, so that what follows does not overtake it
            self._write(frame)

    def _write(self, frame: Frame) -> None:
        if not self._outlet.write(frame):
            self._has_room = False
            if self._full_since is None:
                self._full_since = self._terms.clock()
            self._slow = True
            if self.mode is Mode.LIVE:
                self.mode = Mode.CATCHING_UP

    def _hold(self, frame: Frame) -> None:
        self._held = frame
        wait = self._sent_at + self._delivery.interval_s - self._terms.clock()
        if wait <= 0:
            self._release()
        elif self._timer is None:
            self._timer = self._terms.call_later(wait, self._release)

    def _release(self) -> None:
        frame = self._held
        self._drop_held()
        if frame is not None and self.mode is not Mode.CLOSED:
            self._sent_at = self._terms.clock()
            self._write(frame)

    def _drop_held(self) -> None:
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_go(self, reason: str) -> None:
        self._outlet = NoOutlet()
        self._source.leave(self)
        self._terms.on_close(self, reason)
